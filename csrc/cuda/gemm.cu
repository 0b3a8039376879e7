// The product under linear and the draft head: streams the weight once, split over all multiprocessors.
#include <algorithm>

#include "cuda/gemm.h"
#include "cuda/gemm_launch.cuh"
#include "cuda/silu.cuh"

namespace eagle::cuda {
namespace {

constexpr int64_t kStepsPerSplit = 8;  // fewer would spend the time on filling the ring of stages
constexpr int64_t kFewRows = 32;       // whose partial sums are small beside the weight

// A thread per output stores its column of the tile, a thread of each half of the block where it is gated. The blocks
// of a cluster take turns at the rows.
struct Store {
  GemmOutput to;
  DType dtype;
  int64_t rows, outputs;
  bool gated;
  static_assert(kGemmThreads == kGemmOutputs);

  __device__ void operator()(const GemmTile& tile) const {
    if (to.partials)
      return store(tile, to.partials + tile.split * rows * outputs, [&](int64_t r, int o) { return tile.sum(r, o); });
    switch (dtype) {
      case DType::kFloat32:
        return finish<float>(tile);
      case DType::kFloat16:
        return finish<__half>(tile);
      case DType::kBFloat16:
        return finish<__nv_bfloat16>(tile);
    }
  }

  template <class T>
  __device__ void finish(const GemmTile& tile) const {
    T* output = static_cast<T*>(to.output);
    if (gated)
      return store(tile, output, [&](int64_t r, int o) { return silu(tile.sum(r, o)) * tile.sum(r, o + kGemmPairs); });
    if (to.residual.count)
      return store(tile, output, [&](int64_t r, int o) {
        const auto* residual = reinterpret_cast<const T*>(to.residual[tile.first_row + r]);
        return tile.sum(r, o) + to_float(residual[tile.first_output + o]);
      });
    const int64_t o = tile.first_output + threadIdx.x;
    const float bias = to.bias && o < outputs ? to_float(static_cast<const T*>(to.bias)[o]) : 0;
    store(tile, output, [&](int64_t r, int o) { return tile.sum(r, o) + bias; });
  }

  template <class T, class Value>
  __device__ void store(const GemmTile& tile, T* to, const Value& value) const {
    const int columns = gated ? kGemmPairs : kGemmOutputs, o = static_cast<int>(threadIdx.x) % columns;
    if (o >= tile.outputs) return;
    const int turns = kGemmThreads / columns, turn = static_cast<int>(threadIdx.x) / columns;
    T* column = to + tile.first_row * outputs + tile.first_output + o;
    for (int64_t r = cluster_rank() * turns + turn; r < tile.rows; r += cluster_size() * turns)
      column[r * outputs] = from_float<T>(value(r, o));
  }
};

template <class W>
int64_t shared_bytes(int64_t rows) {
  if (rows <= 8) return TensorGemm<__half, W, 1>::kSharedBytes;
  if (rows <= 16) return TensorGemm<__half, W, 2>::kSharedBytes;
  if (rows <= 32) return TensorGemm<__half, W, 4>::kSharedBytes;
  return TensorGemm<__half, W, 8>::kSharedBytes;
}

}  // namespace

int64_t gemm_splits(const GemmParams& p) {
  if (!fits_tensor_cores(p)) return 1;
  const int64_t rows = p.input.count, shared = p.weight.scale ? shared_bytes<Fp8>(rows) : shared_bytes<__half>(rows);
  const int64_t blocks = ceil_div(rows, TensorGemm<__half, __half, 8>::kRows) * ceil_div(p.outputs, kGemmOutputs);
  const int64_t most = std::max<int64_t>(p.inner / (kStepsPerSplit * kGemmStep), 1);
  const auto filling = [&](int64_t resident) {  // so many blocks a multiprocessor
    return std::clamp<int64_t>(resident_blocks(shared, resident) / std::max<int64_t>(blocks, 1), 1, most);
  };
  // Copies in flight hide the memory's latency: of three blocks, or of as few as have 48 KB under way, where sums weigh
  // more, unless these leave a quarter of the GPU without work.
  if (rows <= kFewRows) return filling(3);
  const int64_t few = filling(p.weight.scale ? 2 : 1);
  return few * blocks * 4 >= num_multiprocessors() * 3 ? few : filling(2);
}

bool gemm_is_direct(const GemmParams& p) {
  return gemm_splits(p) == 1 || has_clusters(gemm_kernel<TensorGemm<__half, __half, 1>, Store>);
}

void gemm(const GemmParams& p, const GemmOutput& to, void* stream) {
  Splits splits{gemm_splits(p)};
  if (!to.partials) splits = {std::min<int64_t>(splits.count, kClusterBlocks), true};
  launch_any_gemm(p, Store{to, p.dtype, p.input.count, p.gated ? p.outputs / 2 : p.outputs, p.gated}, splits, stream);
}

}  // namespace eagle::cuda
