// Asynchronous copies on the CPU: each lands at once or only when it is waited for, as luck has it, so that a missing
// wait or barrier shows. Until then its place holds NaN.
#pragma once
#include <cstring>
#include <deque>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_emulation {

// The number, from 1, of the thread that wrote a chunk and has not shown it to a warpgroup's products; else 0.
inline uint16_t unshown_by[sizeof dynamic_shared / 16];

struct Copy {
  uint32_t to;
  char bytes[16];
  void land() const {
    std::memcpy(dynamic_shared + to, bytes, sizeof bytes);
    unshown_by[to / 16] = static_cast<uint16_t>(threadIdx.x + 1);
  }
};

// A thread's copies under way, the group that is still open last.
struct CopyGroups : std::deque<std::vector<Copy>> {
  CopyGroups() : std::deque<std::vector<Copy>>(1) {}
};
inline CopyGroups copy_groups[1024];
inline std::mt19937 landing(0);

inline void check_copy(uint32_t to, const void* from, size_t alignment) {
  if (to % 16 != 0 || to + 16 > dynamic_shared_bytes || reinterpret_cast<uintptr_t>(from) % alignment != 0)
    throw std::runtime_error("cuda_emulation: a copy's address is misaligned or out of bounds");
}

}  // namespace cuda_emulation

namespace eagle::cuda {

inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const char*>(p) - cuda_emulation::dynamic_shared);
}

inline void copy16_async(uint32_t to, const void* from, bool read) {
  cuda_emulation::check_copy(to, from, 16);
  cuda_emulation::Copy copy{to, {}};
  if (read) std::memcpy(copy.bytes, from, sizeof copy.bytes);
  if (cuda_emulation::landing() % 2 == 0) return copy.land();
  std::memset(cuda_emulation::dynamic_shared + to, 0xff, sizeof copy.bytes);
  cuda_emulation::copy_groups[threadIdx.x].back().push_back(copy);
}

inline void copy16_gathered(uint32_t to, const uint16_t* from, bool read) {
  cuda_emulation::check_copy(to, from, 2);
  cuda_emulation::Copy copy{to, {}};
  if (read) std::memcpy(copy.bytes, from, sizeof copy.bytes);
  copy.land();
}

inline void commit_copies() { cuda_emulation::copy_groups[threadIdx.x].emplace_back(); }

template <int kPending>
void wait_copies() {
  auto& groups = cuda_emulation::copy_groups[threadIdx.x];
  for (; groups.size() > kPending + 1; groups.pop_front())
    for (const cuda_emulation::Copy& copy : groups.front()) copy.land();
}

}  // namespace eagle::cuda
