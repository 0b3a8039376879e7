// The GPU's allocations, looked up by address.
#include "global_memory.h"

#include <algorithm>
#include <vector>

namespace ptx_machine {
namespace {

struct Allocation {
  uint64_t begin, end;
};

std::vector<Allocation> allocations;
size_t last = 0;  // where the last look-up ended: the next one often ends there too

bool holds(const Allocation& a, uint64_t address, uint64_t bytes) {
  return a.begin <= address && address + bytes <= a.end;
}

}  // namespace

void add_global(const void* address, uint64_t bytes) {
  const auto begin = reinterpret_cast<uint64_t>(address);
  allocations.push_back({begin, begin + bytes});
}

void remove_global(const void* address) {
  const auto begin = reinterpret_cast<uint64_t>(address);
  const auto found =
      std::find_if(allocations.begin(), allocations.end(), [&](const Allocation& a) { return a.begin == begin; });
  if (found != allocations.end()) allocations.erase(found);
}

void forget_globals() { allocations.clear(); }

bool is_global(uint64_t address, uint64_t bytes) {
  if (last < allocations.size() && holds(allocations[last], address, bytes)) return true;
  for (size_t i = 0; i < allocations.size(); ++i)
    if (holds(allocations[i], address, bytes)) return last = i, true;
  return false;
}

std::string nearest_global(uint64_t address) {
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

}  // namespace ptx_machine
