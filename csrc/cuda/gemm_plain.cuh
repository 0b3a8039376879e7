// A tile of the product by plain multiply-adds: float32, and rows that 16-byte copies cannot read.
#pragma once
#include "cuda/convert.cuh"
#include "cuda/fp8.cuh"
#include "cuda/gemm_tile.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

// T: input elements, W: those of the weight, T or Fp8.
template <class T, class W>
struct PlainGemm {
  static constexpr int kRows = 4;  // few: all are multiplied, whether they exist or not
  static constexpr int kSharedBytes = kRows * kTilePitch * static_cast<int>(sizeof(float));

  static __device__ void prefetch(const GemmParams&, const GemmTile&) {}

  // A warp takes one output at a time; its lanes share out `inner`.
  static __device__ void run(const GemmParams& g, const GemmTile& tile, char*) {
    const int lane = threadIdx.x % kWarp;
    const T* input[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      input[r] = reinterpret_cast<const T*>(g.input[tile.first_row + min(static_cast<int64_t>(r), tile.rows - 1)]);
    for (int64_t o = threadIdx.x / kWarp; o < kGemmOutputs; o += kGemmThreads / kWarp) {
      if (o % (g.gated ? kGemmPairs : kGemmOutputs) >= tile.outputs) continue;
      const W* weight = static_cast<const W*>(g.weight.data) + tile.weight_row(g, o) * g.inner;
      float sums[kRows] = {};
      for (int64_t k = tile.inner_begin + lane; k < tile.inner_end; k += kWarp) {
        const float w = to_float(weight[k]);
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[r] += w * to_float(input[r][k]);
      }
      const float scale = tile.scale(g, o);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float sum = warp_reduce(sums[r], Sum());
        if (lane == r) tile.values[r * kTilePitch + o] = sum * scale;
      }
    }
  }
};

}  // namespace eagle::cuda
