// The product under linear and the draft head: streams the weight once, split over all multiprocessors.
#include <algorithm>

#include "cuda/gemm.h"
#include "cuda/gemm_launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int64_t kResidentBlocks = 3;  // a multiprocessor: enough copies in flight to hide the memory's latency
constexpr int64_t kStepsPerSplit = 8;   // fewer would spend the time on filling the ring of stages

struct StorePartials {
  float* partials;  // [splits, rows, outputs]
  int64_t rows, outputs;

  __device__ void operator()(const GemmTile& tile) const {
    float* to = partials + (tile.split * rows + tile.first_row) * outputs + tile.first_output;
    const int64_t o = threadIdx.x;
    static_assert(kGemmThreads == kGemmOutputs, "a thread per output");
    if (o >= tile.outputs) return;
    for (int64_t r = 0; r < tile.rows; ++r) to[r * outputs + o] = tile.values[r * kTilePitch + o];
  }
};

int64_t shared_bytes(int64_t rows) {
  if (rows <= 8) return TensorGemm<__half, 1>::kSharedBytes;
  if (rows <= 16) return TensorGemm<__half, 2>::kSharedBytes;
  if (rows <= 32) return TensorGemm<__half, 4>::kSharedBytes;
  return TensorGemm<__half, 8>::kSharedBytes;
}

}  // namespace

int64_t gemm_splits(const GemmParams& p) {
  if (!fits_tensor_cores(p)) return 1;
  const int64_t blocks = ceil_div(p.input.count, TensorGemm<__half, 8>::kRows) * ceil_div(p.outputs, kGemmOutputs);
  const int64_t room = resident_blocks(shared_bytes(p.input.count), kResidentBlocks) / std::max<int64_t>(blocks, 1);
  return std::clamp<int64_t>(room, 1, std::max<int64_t>(p.inner / (kStepsPerSplit * kGemmStep), 1));
}

void gemm_partials(const GemmParams& p, float* partials, void* stream) {
  launch_any_gemm(p, StorePartials{partials, p.input.count, p.outputs}, gemm_splits(p), stream);
}

}  // namespace eagle::cuda
