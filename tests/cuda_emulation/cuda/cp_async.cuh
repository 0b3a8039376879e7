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
inline thread_local uint16_t unshown_by[sizeof dynamic_shared / 16];

struct Copy {
  uint32_t to, size = 16;
  char bytes[16] = {};
  void land() const {
    std::memcpy(dynamic_shared + to, bytes, size);
    unshown_by[to / 16] = static_cast<uint16_t>(threadIdx.x + 1);
  }
};

// A thread's copies under way, the group that is still open last.
struct CopyGroups : std::deque<std::vector<Copy>> {
  CopyGroups() : std::deque<std::vector<Copy>>(1) {}
};
inline thread_local CopyGroups copy_groups[1024];
inline std::mt19937 landing(0);

inline void check_copy(uint32_t to, const void* from, size_t alignment, size_t size = 16) {
  if (to % size != 0 || to + size > dynamic_shared_bytes || reinterpret_cast<uintptr_t>(from) % alignment != 0)
    throw std::runtime_error("cuda_emulation: a copy's address is misaligned or out of bounds");
}

inline void start(const Copy& copy) {
  if (landing() % 2 == 0) return copy.land();
  std::memset(dynamic_shared + copy.to, 0xff, copy.size);
  copy_groups[threadIdx.x].back().push_back(copy);
}

}  // namespace cuda_emulation

namespace eagle::cuda {

inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const char*>(p) - cuda_emulation::dynamic_shared);
}

inline void copy16_async(uint32_t to, const void* from, bool read) {
  cuda_emulation::check_copy(to, from, 16);
  cuda_emulation::Copy copy{.to = to};
  if (read) std::memcpy(copy.bytes, from, copy.size);
  cuda_emulation::start(copy);
}

template <int kSpan>
void copy16_streamed(uint32_t to, const void* from, bool read) {
  copy16_async(to, from, read);
}

inline void copy8_async(uint32_t to, const void* from) {
  cuda_emulation::check_copy(to, from, 8, 8);
  cuda_emulation::Copy copy{.to = to, .size = 8};
  std::memcpy(copy.bytes, from, copy.size);
  cuda_emulation::start(copy);
}

inline void copy16_gathered(uint32_t to, const uint16_t* from, bool read) {
  cuda_emulation::check_copy(to, from, 2);
  cuda_emulation::Copy copy{.to = to};
  if (read) std::memcpy(copy.bytes, from, copy.size);
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
