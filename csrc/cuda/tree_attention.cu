// tree_attention: split over ranges of keys so that a single request fills the GPU, then merged by log-sum-exp.
#include <algorithm>

#include "common/tree_attention.h"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_tensor.cuh"
#include "cuda/dependent.cuh"
#include "cuda/device.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int64_t kMaxSplits = 128;
constexpr int64_t kKeysPerSplit = 128;  // at least: below, merging costs more than it spreads
constexpr int kMergeWarps = 4;

// grid: (packed rows in fours, kv heads, batch); a warp per row adds its ranges in order.
template <class T>
__global__ __launch_bounds__(kMergeWarps* kWarp) void merge_kernel(const __grid_constant__ TreeAttentionParams p,
                                                                   const __grid_constant__ AttentionSplit s) {
  wait_for_earlier_kernels();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kMergeWarps + threadIdx.x / kWarp;
  const int64_t kv_head = blockIdx.y, b = blockIdx.z;
  const int lane = threadIdx.x % kWarp;
  if (row >= packed_rows(p)) return;
  float largest = kNothing;
  for (int64_t split = lane; split < s.splits; split += kWarp)
    largest = fmaxf(largest, s.lse[partial_index(p, split, b, kv_head, row)]);
  const float shift = finite_maximum(warp_reduce(largest, Max()));
  float total = 0, values[kLaneDims] = {};
  for (int64_t split = 0; split < s.splits; ++split) {
    const int64_t at = partial_index(p, split, b, kv_head, row);
    const float lse = s.lse[at];
    if (lse == kNothing) continue;  // such a range has no values
    const float weight = exp2f(lse - shift);
    total += weight;
#pragma unroll
    for (int i = 0; i < kLaneDims; ++i)
      if (i * kWarp + lane < p.head_dim) values[i] += weight * s.values[at * p.head_dim + i * kWarp + lane];
  }
  T* to = static_cast<T*>(p.output) + output_offset(p, b, kv_head, row);
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i)
    if (i * kWarp + lane < p.head_dim) to[i * kWarp + lane] = from_float<T>(total == 0 ? 0 : values[i] / total);
}

bool aligned16(const HeadsView& v) {
  const int64_t strides = v.batch_stride | v.head_stride | v.row_stride;
  return reinterpret_cast<uintptr_t>(v.data) % 16 == 0 && strides % 8 == 0;
}

// Tensor cores take 16-bit elements, fed by copies of 16 bytes.
bool fits_tensor_cores(const TreeAttentionParams& p) {
  return p.dtype != DType::kFloat32 && p.head_dim % 8 == 0 && aligned16(p.query) && aligned16(p.key) &&
         aligned16(p.value);
}

// Blocks as tall as the rows need and shared memory allows, then as many ranges of keys as fill one wave.
template <class Attention>
AttentionSplit plan(const TreeAttentionParams& p) {
  const int64_t rows = p.num_rows * (p.num_heads / p.num_kv_heads), room = max_shared_bytes();
  int64_t most = Attention::kMaxWarps;
  while (most > 1 && Attention::shared_bytes(most) > room) --most;
  const int64_t row_blocks = ceil_div(rows, most * Attention::kWarpRows);
  const int64_t warps = ceil_div(rows, row_blocks * Attention::kWarpRows);
  const int64_t resident = resident_blocks(Attention::shared_bytes(warps), Attention::kMaxWarps / warps);
  const int64_t longest = std::clamp<int64_t>(ceil_div(p.length, kKeysPerSplit), 1, kMaxSplits);
  const int64_t splits = std::clamp<int64_t>(resident / (p.batch * p.num_kv_heads * row_blocks), 1, longest);
  return {.splits = splits, .row_blocks = row_blocks, .warps = warps};
}

template <class T, int kDim, int kTiles>
struct Kernel {
  using Attention = TensorAttention<T, kDim, kTiles>;
  static void run(const TreeAttentionParams& p, const AttentionSplit& s, void* stream) {
    const dim3 grid(s.row_blocks * s.splits, p.num_kv_heads, p.batch);
    launch_shared(tensor_attention_kernel<T, kDim, kTiles>, grid, s.warps * kWarp, Attention::shared_bytes(s.warps),
                  stream, p, s);
  }
};

// body(Kernel{}) with the kernel that fits the element type, head_dim and the number of rows.
template <class T, int kDim, class Body>
auto with_tiles(const TreeAttentionParams& p, const Body& body) {
  if constexpr (kDim <= 128) {
    if (p.num_rows * (p.num_heads / p.num_kv_heads) > 128) return body(Kernel<T, kDim, 2>{});
  }
  return body(Kernel<T, kDim, 1>{});
}

template <class T, class Body>
auto with_dim(const TreeAttentionParams& p, const Body& body) {
  if (p.head_dim <= 64) return with_tiles<T, 64>(p, body);
  if (p.head_dim <= 96) return with_tiles<T, 96>(p, body);
  if (p.head_dim <= 128) return with_tiles<T, 128>(p, body);
  return with_tiles<T, 256>(p, body);
}

template <class Body>
auto with_kernel(const TreeAttentionParams& p, const Body& body) {
  return p.dtype == DType::kFloat16 ? with_dim<__half>(p, body) : with_dim<__nv_bfloat16>(p, body);
}

AttentionSplit plan(const TreeAttentionParams& p) {
  return with_kernel(p, [&](auto kernel) { return plan<typename decltype(kernel)::Attention>(p); });
}

int64_t partial_rows(const TreeAttentionParams& p, int64_t splits) {
  return splits * p.batch * p.num_heads * p.num_rows;
}

bool is_empty(const TreeAttentionParams& p) { return p.batch == 0 || p.num_heads == 0 || p.num_rows == 0; }

void launch_tensor(const TreeAttentionParams& p, void* workspace, void* stream) {
  AttentionSplit s = plan(p);
  s.values = static_cast<float*>(workspace);
  s.lse = s.values + partial_rows(p, s.splits) * p.head_dim;
  with_kernel(p, [&](auto kernel) { kernel.run(p, s, stream); });
  if (s.splits == 1) return;
  const int64_t rows = p.num_rows * (p.num_heads / p.num_kv_heads);
  const dim3 grid(ceil_div(rows, kMergeWarps), p.num_kv_heads, p.batch);
  dispatch(p.dtype,
           [&](auto element) { launch(merge_kernel<decltype(element)>, grid, kMergeWarps * kWarp, stream, p, s); });
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
