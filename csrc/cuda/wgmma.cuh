// A warpgroup's tensor-core products, as Hopper makes them (wgmma, sm_90a): four warps of consecutive numbers, the
// first a multiple of four, multiply 64 rows by a matrix in shared memory, asynchronously.
//
// The left operand and the sums are in registers, warp w of the four holding rows 16 w..16 w + 15 in the layouts of
// mma.cuh: sums[i] are lane l's four of columns 8 i..8 i + 7. From begin_products until the wait for their group, the
// registers of a product belong to it. What threads wrote to shared memory is seen once its writer has shown it and a
// barrier has passed. Source: PTX ISA, "asynchronous warpgroup level matrix instructions".
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/swizzle.cuh"

namespace eagle::cuda {

using Sums64 = float[8][4];  // a lane's part of 64 columns

// What this thread's copies and stores have written becomes visible to products, which read by another path.
__device__ inline void show_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Registers written before are ready for the products that follow.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most kPending of the committed groups are under way.
template <int kPending>
__device__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// After the wait for their product: keeps the compiler from moving reads of sums, or new values for operands, before
// it.
__device__ inline void settle(Sums64& sums) {
#pragma unroll
  for (int i = 0; i < 8; ++i)
    asm volatile("" : "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])::"memory");
}
__device__ inline void settle(uint32_t (&operand)[4]) {
  asm volatile("" : "+r"(operand[0]), "+r"(operand[1]), "+r"(operand[2]), "+r"(operand[3])::"memory");
}

// How the right operand [16, 64] lies in its panel: row k of the operand is a panel's row, or a panel's column.
enum class Panel { kColumnsOfOperand = 0, kRowsOfOperand = 1 };

#define EAGLE_WGMMA_M64N64K16(type)                                                                              \
  asm volatile(                                                                                                  \
      "{\n\t.reg .pred accumulate;\n\tsetp.ne.b32 accumulate, %37, 0;\n\t"                                       \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                                \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "   \
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, accumulate, 1, 1, %38;\n}"  \
      : EAGLE_SUMS(0), EAGLE_SUMS(1), EAGLE_SUMS(2), EAGLE_SUMS(3), EAGLE_SUMS(4), EAGLE_SUMS(5), EAGLE_SUMS(6), \
        EAGLE_SUMS(7)                                                                                            \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),                   \
        "n"(static_cast<int>(kPanel)))
#define EAGLE_SUMS(i) "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])

// sums = a [64, 16] * b [16, 64], or += if accumulate; panel_descriptor (swizzle.cuh) describes b.
template <class T, Panel kPanel>
__device__ void multiply_64(Sums64& sums, const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    EAGLE_WGMMA_M64N64K16("bf16");
  } else {
    static_assert(std::is_same_v<T, __half>);
    EAGLE_WGMMA_M64N64K16("f16");
  }
}
#undef EAGLE_SUMS
#undef EAGLE_WGMMA_M64N64K16

}  // namespace eagle::cuda
