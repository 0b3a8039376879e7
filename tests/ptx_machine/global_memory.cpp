// The GPU's allocations, looked up by address, and checks of what lanes do to them.
#include "global_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "machine.h"
#include "order.h"

namespace ptx_machine {
namespace {

// Of one byte: times, 0 for never, and who. Four bytes hold the barriers of any test.
struct Cell {
  uint32_t written, read;
  uint32_t read_before;  // by a cluster before the one that read last
  uint32_t writer, reader;
};

struct Allocation {
  uint64_t begin, end;
  bool begins_empty;
  std::unique_ptr<Cell[], decltype(&std::free)> cells{nullptr, &std::free};  // once a lane touches it

  bool holds(uint64_t address, uint64_t bytes) const { return begin <= address && address + bytes <= end; }

  // All 0, and no memory yet where nothing is touched.
  Cell* cells_from(uint64_t address) {
    if (!cells) cells.reset(static_cast<Cell*>(std::calloc(end - begin, sizeof(Cell))));
    return &cells[address - begin];
  }
};

std::vector<Allocation> allocations;
size_t last = 0;  // where the last look-up ended: the next one often ends there too

Allocation* find(uint64_t address, uint64_t bytes) {
  if (last < allocations.size() && allocations[last].holds(address, bytes)) return &allocations[last];
  for (size_t i = 0; i < allocations.size(); ++i)
    if (allocations[i].holds(address, bytes)) return &allocations[last = i];
  return nullptr;
}

// Where the closest allocation lies.
std::string nearest(uint64_t address) {
  if (allocations.empty()) return "there is no allocation";
  const auto distance = [&](const Allocation& a) {
    return address < a.begin ? a.begin - address : address >= a.end ? address - a.end : 0;
  };
  const Allocation& nearest = *std::min_element(
      allocations.begin(), allocations.end(), [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  const std::string size = " of " + std::to_string(nearest.end - nearest.begin) + " bytes";
  const std::string what = address < nearest.begin ? std::to_string(nearest.begin - address) + " bytes before"
                                                   : "at byte " + std::to_string(address - nearest.begin) + " of";
  return what + " the nearest allocation," + size;
}

// Raises Fault unless what was done to a byte at `time` happened before what the lane does now.
void check_order(const Warp& warp, int lane, uint64_t byte, uint32_t time, uint32_t by, const char* does,
                 const char* did) {
  const Cluster& cluster = *warp.block->cluster;
  if (time < cluster.launch_time) return;  // an earlier launch
  const auto fail = [&](const std::string& who, const char* why) {
    throw Fault(lane, does + (" byte " + std::to_string(byte)) + " of global memory, which " + who + did + why);
  };
  if (time < cluster.begin_time) fail("a block of another cluster", " in the same launch");
  if (!ordered(warp, lane, time, by)) fail(name(by), ", with no barrier between");
}

void check_read(const Warp& warp, int lane, uint64_t byte, const Cell& cell, Use use) {
  if (use != Use::kVolatile || kind_of(cell.writer) != kAtomic)
    check_order(warp, lane, byte, cell.written, cell.writer, "reads", " wrote");
}

void check_write(const Warp& warp, int lane, uint64_t byte, const Cell& cell, Use use) {
  if (use != Use::kAtomic || kind_of(cell.writer) != kAtomic)
    check_order(warp, lane, byte, cell.written, cell.writer, "writes", " wrote");
  check_order(warp, lane, byte, cell.read_before, cell.reader, "writes", " read");
  check_order(warp, lane, byte, cell.read, cell.reader, "writes", " read");
}

void note(const Warp& warp, int lane, Cell& cell, Use use) {
  const Cluster& cluster = *warp.block->cluster;
  if (use == Use::kVolatile) return;
  if (use != Use::kRead) {
    cell.writer = who(use == Use::kAtomic ? kAtomic : kThread, warp, lane);
    cell.written = static_cast<uint32_t>(cluster.time);
    return;
  }
  const bool by_others = cell.read < cluster.begin_time;
  if (by_others) cell.read_before = cell.read;
  cell.reader = joined(warp, lane, by_others ? 0 : cell.read, cell.reader);
  cell.read = static_cast<uint32_t>(cluster.time);
}

}  // namespace

void add_global(const void* address, uint64_t bytes, bool begins_empty) {
  Allocation added{reinterpret_cast<uint64_t>(address), reinterpret_cast<uint64_t>(address) + bytes, begins_empty};
  for (size_t i = allocations.size(); i-- > 0;) {
    const Allocation& other = allocations[i];
    if (other.end <= added.begin || added.end <= other.begin) continue;
    added.begin = std::min(added.begin, other.begin);
    added.end = std::max(added.end, other.end);
    allocations.erase(allocations.begin() + static_cast<std::ptrdiff_t>(i));
  }
  allocations.push_back(std::move(added));
}

void remove_global(const void* address) {
  const auto begin = reinterpret_cast<uint64_t>(address);
  const auto found =
      std::find_if(allocations.begin(), allocations.end(), [&](const Allocation& a) { return a.begin == begin; });
  if (found != allocations.end()) allocations.erase(found);
}

void forget_globals() { allocations.clear(); }

bool is_global(uint64_t address, uint64_t bytes) { return find(address, bytes) != nullptr; }

void set_global(uint64_t address, int value, uint64_t bytes) {
  std::memset(reinterpret_cast<void*>(address), value, bytes);
  Cell* cell = find(address, bytes)->cells_from(address);
  for (uint64_t i = 0; i < bytes; ++i) cell[i] = {.written = 1};  // before every launch
}

char* global_place(const Warp& warp, int lane, uint64_t address, uint32_t bytes, Use use) {
  Allocation* allocation = find(address, bytes);
  if (allocation == nullptr)
    throw Fault(lane,
                std::to_string(bytes) + " bytes of global memory that belong to no allocation, " + nearest(address));
  if (warp.block->cluster->launch->begins_early && (warp.waited >> lane & 1) == 0)
    throw Fault(lane, "touches global memory before it has waited for earlier kernels");
  Cell* cells = allocation->cells_from(address);
  for (uint32_t i = 0; i < bytes; ++i) {
    const uint64_t byte = address - allocation->begin + i;
    if (use != Use::kWrite && allocation->begins_empty && cells[i].written == 0)
      throw Fault(lane, "reads byte " + std::to_string(byte) + " of a workspace, which nobody has written");
    if (use == Use::kRead || use == Use::kVolatile)
      check_read(warp, lane, byte, cells[i], use);
    else
      check_write(warp, lane, byte, cells[i], use);
    note(warp, lane, cells[i], use);
  }
  return reinterpret_cast<char*>(address);
}

}  // namespace ptx_machine
