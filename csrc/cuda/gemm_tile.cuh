// The tile of a matrix product that one block computes, whatever computes it and whatever becomes of it.
#pragma once
#include "cuda/cluster.cuh"
#include "cuda/dependent.cuh"
#include "cuda/dynamic_shared.cuh"
#include "cuda/gemm.h"

namespace eagle::cuda {

constexpr int kGemmThreads = 128;
constexpr int kGemmOutputs = 128;             // outputs, that is weight rows, of a tile
constexpr int kGemmPairs = kGemmOutputs / 2;  // outputs of a gated product's tile
constexpr int kGemmStep = 64;                 // elements of `inner` that are multiplied at a time
constexpr int kTilePitch = kGemmOutputs + 4;  // a warp's accumulators then go to 32 different banks

// One block's share, and where its float32 results lie in shared memory: [rows][kTilePitch], which all threads of the
// cluster may read. The blocks of a cluster have the same rows and outputs, and each a range of `inner`.
struct GemmTile {
  int64_t first_row, rows;        // rows that exist
  int64_t first_output, outputs;  // outputs that exist; of a gated product, pairs
  int64_t inner_begin, inner_end;
  int64_t output_block, num_output_blocks, split;
  float* values;

  // Which row of the weight is the tile's o-th: of a gated product half of them are gates. Those past the last output
  // are rows again whose sums nobody reads.
  __device__ int64_t weight_row(const GemmParams& g, int64_t o) const {
    if (!g.gated) return first_output + min(o, outputs - 1);
    const int64_t half = o < kGemmPairs ? 0 : g.outputs / 2;
    return half + first_output + min(o % kGemmPairs, outputs - 1);
  }

  // What the sums of that row are multiplied by.
  __device__ float scale(const GemmParams& g, int64_t o) const {
    return g.weight.scale ? g.weight.scale[weight_row(g, o)] : 1;
  }

  // What the ranges of the cluster add up to, in their order.
  __device__ float sum(int64_t row, int64_t o) const {
    float* at = values + row * kTilePitch + o;
    if (cluster_size() == 1) return *at;
    float total = 0;
    for (int block = 0; block < cluster_size(); ++block) total += *in_block(at, block);
    return total;
  }
};

// grid: (blocks of input rows, blocks of outputs, splits of the inner dimension)
template <int kRows>
__device__ GemmTile this_tile(const GemmParams& g, float* values) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t most = g.gated ? kGemmPairs : kGemmOutputs, first_output = blockIdx.y * most;
  const int64_t steps = (g.inner + kGemmStep - 1) / kGemmStep;
  const int64_t range = (steps + gridDim.z - 1) / gridDim.z * kGemmStep;
  return {
      .first_row = first_row,
      .rows = min(static_cast<int64_t>(kRows), g.input.count - first_row),
      .first_output = first_output,
      .outputs = min(most, (g.gated ? g.outputs / 2 : g.outputs) - first_output),
      .inner_begin = min(blockIdx.z * range, g.inner),
      .inner_end = min((blockIdx.z + 1) * range, g.inner),
      .output_block = blockIdx.y,
      .num_output_blocks = gridDim.y,
      .split = blockIdx.z,
      .values = values,
  };
}

// Compute::prefetch asks for the first weights while earlier kernels end, Compute::run leaves a tile in shared memory,
// Epilogue does the rest. Two blocks a multiprocessor are what the compiler is to plan for: shared memory allows few
// more, and for an occupancy out of reach it would spill registers.
template <class Compute, class Epilogue>
__global__ __launch_bounds__(kGemmThreads, 2) void gemm_kernel(const __grid_constant__ GemmParams g,
                                                               const __grid_constant__ Epilogue epilogue) {
  char* shared = dynamic_shared();
  const GemmTile tile = this_tile<Compute::kRows>(g, reinterpret_cast<float*>(shared));
  Compute::prefetch(g, tile);
  wait_for_earlier_kernels();
  Compute::run(g, tile, shared);
  cluster_barrier();  // the tile is complete
  epilogue(tile);
  if (cluster_size() > 1) cluster_barrier();  // others may still read it
}

}  // namespace eagle::cuda
