// tree_attention: split over ranges of keys so that a single request fills the GPU, then merged by log-sum-exp.
#include <algorithm>

#include "common/tree_attention.h"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_tensor.cuh"
#include "cuda/attention_warpgroup.cuh"
#include "cuda/dependent.cuh"
#include "cuda/device.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int64_t kMaxSplits = 128;
constexpr int64_t kBlockTiles = 4;  // what a block's query, first tile and share of the merge take, as tiles
constexpr int64_t kFewRows = 64;    // packed rows of a kv head up to which bandwidth, not arithmetic, is the bound
constexpr int kMergeWarps = 4;

// grid: (packed rows, kv heads, batch); a block's warps share out the ranges of a row, then add their sums.
template <class T>
__global__ __launch_bounds__(kMergeWarps* kWarp) void merge_kernel(const __grid_constant__ TreeAttentionParams p,
                                                                   const __grid_constant__ AttentionSplit s) {
  wait_for_earlier_kernels();
  alignas(float4) __shared__ float sums[kMergeWarps][kMaxHeadDim];
  const int64_t kv_head = blockIdx.y, b = blockIdx.z;
  const int row = blockIdx.x, lane = lane_id();
  const auto lse = [&](int split) { return s.lse[partial_index(p, split, b, kv_head, row)]; };

  // 1. Each range's weight, relative to the largest; every warp finds them for itself.
  float largest = kNothing, total = 0;
  for (int split = lane; split < s.splits; split += kWarp) largest = fmaxf(largest, lse(split));
  const float shift = finite_maximum(warp_reduce(largest, Max()));
  for (int split = lane; split < s.splits; split += kWarp) total += exp2f(lse(split) - shift);
  total = warp_reduce(total, Sum());
  if (total != 0) total += sink_weight<T>(p, head_of(p, kv_head, row), shift);

  // 2. This warp's ranges, four columns a lane. One without weight may have no values.
  float4 sum[kMaxHeadDim / (4 * kWarp)] = {};
#pragma unroll 4
  for (int split = warp_id(); split < s.splits; split += kMergeWarps) {
    const float weight = exp2f(lse(split) - shift);
    const float* values = s.values + partial_index(p, split, b, kv_head, row) * p.head_dim;
#pragma unroll
    for (int i = 0; i < kMaxHeadDim / (4 * kWarp); ++i) {
      const int column = (i * kWarp + lane) * 4;
      if (weight == 0 || column >= p.head_dim) continue;
      const float4 value = *reinterpret_cast<const float4*>(values + column);
      sum[i].x += weight * value.x;
      sum[i].y += weight * value.y;
      sum[i].z += weight * value.z;
      sum[i].w += weight * value.w;
    }
  }
#pragma unroll
  for (int i = 0; i < kMaxHeadDim / (4 * kWarp); ++i)
    *reinterpret_cast<float4*>(&sums[warp_id()][(i * kWarp + lane) * 4]) = sum[i];
  __syncthreads();  // every warp's sum is there

  // 3. Their sum.
  T* to = static_cast<T*>(p.output) + output_offset(p, b, kv_head, row);
  for (int column = threadIdx.x; column < p.head_dim; column += kMergeWarps * kWarp) {
    float value = 0;
#pragma unroll
    for (int warp = 0; warp < kMergeWarps; ++warp) value += sums[warp][column];
    to[column] = from_float<T>(total == 0 ? 0 : value / total);
  }
}

bool aligned16(const HeadsView& v) {
  const int64_t strides = v.batch_stride | v.head_stride | v.row_stride;
  return reinterpret_cast<uintptr_t>(v.data) % 16 == 0 && strides % 8 == 0;
}

// Tensor cores take 16-bit elements, fed by copies of 16 bytes; their kernels look for the maximum before they scale.
bool fits_tensor_cores(const TreeAttentionParams& p) {
  return p.dtype != DType::kFloat32 && p.scale > 0 && p.head_dim % 8 == 0 && aligned16(p.query) && aligned16(p.key) &&
         aligned16(p.value);
}

// How many ranges of a cache of `tiles` are the fastest, where each takes `blocks` blocks: few waves, the last of them
// well filled. Of the numbers that take as many waves, the largest is the best one.
int64_t best_splits(int64_t tiles, int64_t blocks, int64_t resident) {
  constexpr int64_t kMaxWaves = 8;  // so many are full enough
  const auto time = [&](int64_t splits) {
    return ceil_div(splits * blocks, resident) * (static_cast<double>(tiles) / splits + kBlockTiles);
  };
  int64_t best = 1;
  for (int64_t waves = 1; waves <= kMaxWaves; ++waves) {
    const int64_t splits = std::clamp<int64_t>(waves * resident / blocks, 1, std::min(tiles, kMaxSplits));
    if (time(splits) < time(best)) best = splits;
  }
  return best;
}

// Blocks as tall as the rows need and shared memory allows, then as many ranges of keys as are the fastest.
template <class Attention>
AttentionSplit plan(const TreeAttentionParams& p) {
  const int64_t rows = p.num_rows * (p.num_heads / p.num_kv_heads), room = max_shared_bytes();
  int64_t most = Attention::kMaxWarps;
  while (most > Attention::kWarpMultiple && Attention::shared_bytes(most) > room) most -= Attention::kWarpMultiple;
  const int64_t row_blocks = ceil_div(rows, most * Attention::kWarpRows);
  const int64_t warps = round_up(ceil_div(rows, row_blocks * Attention::kWarpRows), Attention::kWarpMultiple);
  const int64_t resident = resident_blocks(Attention::shared_bytes(warps), Attention::kMaxWarps / warps);
  const int64_t keys = std::min(p.length, int64_t{p.window} + p.mask_words * kMaskWordBits);
  const int64_t tiles = std::max<int64_t>(ceil_div(keys, Attention::kKeys), 1);
  const int64_t splits = best_splits(tiles, p.batch * p.num_kv_heads * row_blocks, resident);
  return {
      .splits = static_cast<int>(splits), .row_blocks = static_cast<int>(row_blocks), .warps = static_cast<int>(warps)};
}

using Kernel = void (*)(TreeAttentionParams, AttentionSplit);

template <class T, int kDim, int kTiles>
struct ByTensorCores {
  using Attention = TensorAttention<T, kDim, kTiles>;
  static constexpr Kernel kKernel = tensor_attention_kernel<T, kDim, kTiles>;
};

template <class T, int kDim>
struct ByWarpgroups {
  using Attention = WarpgroupAttention<T, kDim>;
  static constexpr Kernel kKernel = warpgroup_attention_kernel<T, kDim>;
};

// body(way) with the way that fits the element type, head_dim, the number of rows and the GPU.
template <class T, int kDim, class Body>
auto with_tiles(const TreeAttentionParams& p, const Body& body) {
  const int64_t rows = p.num_rows * (p.num_heads / p.num_kv_heads);
  if constexpr (kDim == 64 || kDim == 128) {
    using Way = ByWarpgroups<T, kDim>;
    if (rows > kFewRows && runs_wgmma(Way::kKernel)) return body(Way{});
  }
  if constexpr (kDim <= 128) {
    if (rows > 128) return body(ByTensorCores<T, kDim, 2>{});
  }
  return body(ByTensorCores<T, kDim, 1>{});
}

template <class T, class Body>
auto with_dim(const TreeAttentionParams& p, const Body& body) {
  if (p.head_dim <= 64) return with_tiles<T, 64>(p, body);
  if (p.head_dim <= 96) return with_tiles<T, 96>(p, body);
  if (p.head_dim <= 128) return with_tiles<T, 128>(p, body);
  return with_tiles<T, 256>(p, body);
}

template <class Body>
auto with_way(const TreeAttentionParams& p, const Body& body) {
  return dispatch_halves(p.dtype, [&](auto element) { return with_dim<decltype(element)>(p, body); });
}

AttentionSplit plan(const TreeAttentionParams& p) {
  return with_way(p, [&](auto way) { return plan<typename decltype(way)::Attention>(p); });
}

int64_t partial_rows(const TreeAttentionParams& p, int64_t splits) {
  return splits * p.batch * p.num_heads * p.num_rows;
}

bool is_empty(const TreeAttentionParams& p) { return p.batch == 0 || p.num_heads == 0 || p.num_rows == 0; }

void launch_tensor(const TreeAttentionParams& p, void* workspace, void* stream) {
  AttentionSplit s = plan(p);
  s.values = static_cast<float*>(workspace);
  s.lse = s.values + partial_rows(p, s.splits) * p.head_dim;
  with_way(p, [&](auto way) {
    using Attention = typename decltype(way)::Attention;
    const dim3 grid(s.row_blocks * s.splits, p.num_kv_heads, p.batch);
    launch_shared(way.kKernel, grid, s.warps * kWarp, Attention::shared_bytes(s.warps), stream, p, s);
  });
  if (s.splits == 1) return;
  const int64_t rows = p.num_rows * (p.num_heads / p.num_kv_heads);
  const dim3 grid(rows, p.num_kv_heads, p.batch);
  dispatch_halves(
      p.dtype, [&](auto element) { launch(merge_kernel<decltype(element)>, grid, kMergeWarps * kWarp, stream, p, s); });
}

}  // namespace

int64_t tree_attention_workspace(const TreeAttentionParams& p) {
  if (is_empty(p) || !fits_tensor_cores(p)) return 0;
  const int64_t splits = plan(p).splits;
  return splits == 1 ? 0 : partial_rows(p, splits) * (p.head_dim + 1) * static_cast<int64_t>(sizeof(float));
}

void tree_attention(const TreeAttentionParams& p, void* workspace, void* stream) {
  if (is_empty(p)) return;
  if (fits_tensor_cores(p)) {
    launch_tensor(p, workspace, stream);
  } else {
    const dim3 grid(p.num_rows, p.num_heads, p.batch);
    dispatch(p.dtype, [&](auto element) {
      launch(plain_attention_kernel<decltype(element)>, grid, kPlainWarps * kWarp, stream, p);
    });
  }
  check_launch("tree_attention");
}

}  // namespace eagle::cuda
