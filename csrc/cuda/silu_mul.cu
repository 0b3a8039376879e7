// silu_mul: elementwise, 16 bytes a thread where rows allow.
#include "common/silu_mul.h"
#include "cuda/alignment.h"
#include "cuda/convert.cuh"
#include "cuda/launch.cuh"
#include "cuda/silu.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int kWidth>
__device__ void multiply_row(const T* gate, const T* up, int64_t size, T* to) {
  const int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kWidth;
  if (i >= size) return;
  const auto g = load_pack<T, kWidth>(gate + i), u = load_pack<T, kWidth>(up + i);
  Pack<T, kWidth> product;
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
    product.value[j] = from_float<T>(rounded<T>(silu(to_float(g.value[j]))) * to_float(u.value[j]));
  store_pack(to + i, product);
}

// grid: (rows, stretches of a row)
template <class T, int kWidth>
__global__ __launch_bounds__(kThreads) void silu_mul_kernel(const __grid_constant__ SiluMulParams p) {
  const int64_t row = blockIdx.x;
  multiply_row<T, kWidth>(reinterpret_cast<const T*>(p.gate[row]), reinterpret_cast<const T*>(p.up[row]), p.size,
                          static_cast<T*>(p.output) + row * p.size);
}

}  // namespace

void silu_mul(const SiluMulParams& p, void* stream) {
  if (p.gate.count == 0 || p.size == 0) return;
  dispatch(p.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = kFullWidth<T>;
    const bool packs = aligned16(p.gate) && aligned16(p.up) && aligned16(p.output) && p.size % kWidth == 0;
    const dim3 grid(p.gate.count, ceil_div(p.size, kThreads * (packs ? kWidth : 1)));
    launch(packs ? silu_mul_kernel<T, kWidth> : silu_mul_kernel<T, 1>, grid, kThreads, stream, p);
  });
  check_launch("silu_mul");
}

}  // namespace eagle::cuda
