// Checks of shared memory: bounds, bytes without a value, races, copies and products that are under way.
#include "shared_memory.h"

#include <algorithm>
#include <cstring>

#include "machine.h"

namespace ptx_machine {
namespace {

// Who touched a byte: a thread, or several that no barrier separates.
enum Kind : uint32_t { kThread, kOfWarp, kOfBlock, kAtomic, kOfCluster };
constexpr uint32_t kKindShift = 20, kBlockShift = 10, kThreadBits = (1 << kBlockShift) - 1;

uint32_t who(Kind kind, int block, int thread) {
  return kind << kKindShift | static_cast<uint32_t>(block) << kBlockShift | static_cast<uint32_t>(thread);
}
uint32_t who(const Warp& warp, int lane) { return who(kThread, warp.block->rank, warp.thread(lane)); }
Kind kind_of(uint32_t who) { return static_cast<Kind>(who >> kKindShift); }
int block_of(uint32_t who) { return static_cast<int>(who >> kBlockShift & 0x3ff); }
int thread_of(uint32_t who) { return static_cast<int>(who & kThreadBits); }

// Whether what happened then happened before what the lane does now.
bool ordered(const Warp& warp, int lane, uint64_t time, uint32_t by) {
  if (time < warp.cluster_time) return true;
  if (kind_of(by) == kOfCluster || block_of(by) != warp.block->rank) return false;
  if (time < warp.block_time) return true;
  if (kind_of(by) > kOfWarp || thread_of(by) / kLanes != warp.number) return false;
  return time < warp.warp_time || (kind_of(by) == kThread && thread_of(by) % kLanes == lane);
}

std::string name(uint32_t by) {
  switch (kind_of(by)) {
    case kThread:
      return "thread " + std::to_string(thread_of(by));
    case kOfWarp:
      return "several lanes of warp " + std::to_string(thread_of(by) / kLanes);
    default:
      return "several threads";
  }
}

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
  const uint32_t me = who(warp, lane);
  for (uint32_t i = at; i < at + bytes; ++i) {
    Cell& cell = cells_[i];
    if (cell.in_copy) throw Fault(lane, "reads " + byte(i) + ", which a copy under way has not reached yet");
    if (!cell.has_value) throw Fault(lane, "reads " + byte(i) + ", which nobody has written");
    if (!ordered(warp, lane, cell.written, cell.writer))
      throw Fault(lane, "reads " + byte(i) + ", which " + name(cell.writer) + " wrote, with no barrier between");
    if (cell.reader != me && cell.read != 0 && !ordered(warp, lane, cell.read, cell.reader)) {
      const bool of_block = block_of(cell.reader) == warp.block->rank && kind_of(cell.reader) <= kOfBlock;
      const bool of_warp =
          of_block && kind_of(cell.reader) != kOfBlock && thread_of(cell.reader) / kLanes == warp.number;
      cell.reader = who(of_warp ? kOfWarp : of_block ? kOfBlock : kOfCluster, warp.block->rank, warp.thread(lane));
    } else {
      cell.reader = me;
    }
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
    cell.writer = who(warp, lane);
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
    cell.writer = who(kAtomic, warp.block->rank, warp.thread(lane));
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
    cell.writer = who(warp, lane);
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
