// Checks of shared memory: bounds, bytes without a value, races, copies and products that are under way.
#include "shared_memory.h"

#include <algorithm>
#include <cstring>

#include "machine.h"
#include "order.h"

namespace ptx_machine {
namespace {

std::string byte(uint32_t at) { return "byte " + std::to_string(at) + " of shared memory"; }

}  // namespace

void SharedMemory::reset(uint32_t bytes) {
  bytes_.assign(bytes, static_cast<char>(0xff));
  cells_.assign(bytes, Cell{});
}

void SharedMemory::check_range(int lane, uint32_t at, uint32_t bytes) const {
  if (uint64_t{at} + bytes > bytes_.size())
    throw Fault(lane, std::to_string(bytes) + " bytes at " + std::to_string(at) + " reach beyond the " +
                          std::to_string(bytes_.size()) + " bytes of shared memory");
}

const char* SharedMemory::read(const Warp& warp, int lane, uint32_t at, uint32_t bytes) {
  check_range(lane, at, bytes);
  const uint64_t now = warp.block->cluster->time;
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    if (cell.in_copy) throw Fault(lane, "reads " + byte(i) + ", which a copy under way has not reached yet");
    if (!cell.has_value) throw Fault(lane, "reads " + byte(i) + ", which nobody has written");
    if (!ordered(warp, lane, cell.written, cell.writer))
      throw Fault(lane, "reads " + byte(i) + ", which " + name(cell.writer) + " wrote, with no barrier between");
    cell.reader = joined(warp, lane, cell.read, cell.reader);
    cell.read = now;
  }
  return bytes_.data() + at;
}

void SharedMemory::check_write(const Warp& warp, int lane, uint32_t at, const Cell& cell, bool atomic) const {
  if (cell.in_copy) throw Fault(lane, "writes " + byte(at) + ", which a copy under way writes too");
  if (cell.products != 0) throw Fault(lane, "writes " + byte(at) + ", which a product under way may still read");
  if (cell.has_value && !(atomic && kind_of(cell.writer) == kAtomic) && !ordered(warp, lane, cell.written, cell.writer))
    throw Fault(lane, "writes " + byte(at) + ", which " + name(cell.writer) + " wrote, with no barrier between");
  if (cell.read != 0 && !ordered(warp, lane, cell.read, cell.reader))
    throw Fault(lane, "writes " + byte(at) + ", which " + name(cell.reader) + " read, with no barrier between");
}

char* SharedMemory::write(const Warp& warp, int lane, uint32_t at, uint32_t bytes) {
  check_range(lane, at, bytes);
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    check_write(warp, lane, i, cell, false);
    cell.written = warp.block->cluster->time;
    cell.writer = who(kThread, warp, lane);
    cell.has_value = true;
  }
  return bytes_.data() + at;
}

char* SharedMemory::change_atomically(const Warp& warp, int lane, uint32_t at, uint32_t bytes) {
  check_range(lane, at, bytes);
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    if (!cell.has_value) throw Fault(lane, "reads " + byte(i) + ", which nobody has written");
    check_write(warp, lane, i, cell, true);
    cell.written = warp.block->cluster->time;
    cell.writer = who(kAtomic, warp, lane);
  }
  return bytes_.data() + at;
}

void SharedMemory::begin_copy(const Warp& warp, int lane, uint32_t at, uint32_t bytes) {
  check_range(lane, at, bytes);
  for (uint32_t i = at; i < at + bytes; ++i) {
    check_write(warp, lane, i, cells_[i], false);
    cells_[i].in_copy = true;
  }
}

void SharedMemory::land_copy(const Warp& warp, int lane, uint32_t at, uint32_t bytes, const char* data) {
  std::memcpy(bytes_.data() + at, data, bytes);
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    cell.in_copy = false;
    cell.has_value = true;
    cell.written = warp.block->cluster->time;
    cell.writer = who(kThread, warp, lane);
  }
}

const char* SharedMemory::begin_product(const Warp& warp, uint32_t at, uint32_t bytes) {
  check_range(0, at, bytes);
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    if (cell.in_copy) throw Fault(0, "multiplies by " + byte(i) + ", which a copy under way has not reached yet");
    if (!cell.has_value) throw Fault(0, "multiplies by " + byte(i) + ", which nobody has written");
    if (kind_of(cell.writer) != kThread || block_of(cell.writer) != warp.block->rank)
      throw Fault(0, "multiplies by " + byte(i) + ", which " + name(cell.writer) + " changed");
    const int thread = thread_of(cell.writer);
    const auto& fences = warp.block->warps[thread / kLanes].proxy_fences[thread % kLanes];
    const auto shown = std::upper_bound(fences.begin(), fences.end(), cell.written);
    if (shown == fences.end() || *shown >= warp.block_time)
      throw Fault(0, "multiplies by " + byte(i) + ", which " + name(cell.writer) +
                         " wrote, and not fence.proxy.async of that thread and then a barrier between");
    ++cell.products;
  }
  return bytes_.data() + at;
}

void SharedMemory::end_product(const Warp& warp, uint32_t at, uint32_t bytes) {
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    --cell.products;
    cell.read = warp.block->cluster->time;
    cell.reader = who(kOfBlock, warp.block->rank, 0);
  }
}

}  // namespace ptx_machine
