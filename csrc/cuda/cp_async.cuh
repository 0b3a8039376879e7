// Copies from global to shared memory that bypass registers and complete in groups, in the order of their commits.
#pragma once
#include <cstdint>

namespace eagle::cuda {

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// 16 bytes; zeros where `read` is false, and then `from` is not read. Both addresses are multiples of 16.
__device__ inline void copy16_async(uint32_t to, const void* from, bool read) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(read ? 16 : 0) : "memory");
}

// The same, with a hint to fetch all of the aligned kSpan bytes into the second-level cache, since they come next.
template <int kSpan>
__device__ void copy16_streamed(uint32_t to, const void* from, bool read) {
  static_assert(kSpan == 128 || kSpan == 256);
  if constexpr (kSpan == 128)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(read ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(read ? 16 : 0)
                 : "memory");
}

// 8 bytes. Both addresses are multiples of 8.
__device__ inline void copy8_async(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
}

// 16 bytes again, of 16-bit elements at any address, through registers and done at once; seen by others after a
// barrier.
__device__ inline void copy16_gathered(uint32_t to, const uint16_t* from, bool read) {
  uint32_t pair[4] = {};
  if (read)
#pragma unroll
    for (int i = 0; i < 4; ++i) pair[i] = from[2 * i] | static_cast<uint32_t>(from[2 * i + 1]) << 16;
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pair[0]), "r"(pair[1]), "r"(pair[2]),
               "r"(pair[3])
               : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups are in flight. Other threads' copies need a barrier after it.
template <int kPending>
__device__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace eagle::cuda
