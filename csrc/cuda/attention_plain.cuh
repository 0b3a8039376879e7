// tree_attention by plain multiply-adds: float32, and rows that 16-byte copies cannot read.
#pragma once
#include "cuda/attention_split.cuh"
#include "cuda/dependent.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr int kPlainWarps = 4;
constexpr int kLaneDims = kMaxHeadDim / kWarp;

// A warp's softmax average of one row under way; lane l holds dimensions l, l + 32, ...
struct PlainState {
  float maximum = kNothing, sum = 0;
  float values[kLaneDims] = {};
};

// One more key: its score and its value row.
template <class T>
__device__ void attend_key(const float (&query)[kLaneDims], const T* key, const T* value, int64_t head_dim,
                           PlainState& state) {
  const int lane = threadIdx.x % kWarp;
  float dot = 0;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i)
    if (i * kWarp + lane < head_dim) dot += query[i] * to_float(key[i * kWarp + lane]);
  const float score = warp_reduce(dot, Sum());
  const float largest = fmaxf(state.maximum, score), shift = finite_maximum(largest);
  const float keep = exp2f(state.maximum - shift), weight = exp2f(score - shift);
  state.maximum = largest;
  state.sum = state.sum * keep + weight;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i)
    if (i * kWarp + lane < head_dim)
      state.values[i] = state.values[i] * keep + weight * to_float(value[i * kWarp + lane]);
}

// grid: (query rows, heads, batch); a block's warps take every fourth key, then meet in shared memory.
template <class T>
__global__ __launch_bounds__(kPlainWarps* kWarp) void plain_attention_kernel(
    const __grid_constant__ TreeAttentionParams p) {
  wait_for_earlier_kernels();
  __shared__ float maximum[kPlainWarps], sum[kPlainWarps], values[kPlainWarps][kMaxHeadDim];
  const int64_t row = blockIdx.x, head = blockIdx.y, b = blockIdx.z, kv_head = blockIdx.y / group_size(p);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;

  // 1. The query in registers, scaled so that scores are in units of log 2.
  const T* from = head_data<T>(p.query, b, head) + row * p.query.row_stride;
  float query[kLaneDims];
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    const int column = i * kWarp + lane;
    query[i] = column < p.head_dim ? to_float(from[column]) * score_factor(p) : 0;
  }

  // 2. Each warp's share of the committed prefix and of the ancestors.
  PlainState state;
  const int context = committed(p, b);
  const AncestorWords ancestors = ancestor_words(p.ancestor_mask + (b * p.num_rows + row) * p.mask_words, p.mask_words);
  const int end = static_cast<int>(min(context + p.mask_words * kMaskWordBits, p.length));
  for (int key = max(window_start(p, context), 0) + warp; key < end; key += kPlainWarps) {
    const bool visible = keys_in_window(p, ancestors, context, key) & 1;
    const CacheRow at = visible ? locate(p.pages, b, key) : CacheRow{};
    if (!at.there) continue;
    const CacheRows<T> keys(p.key, at.page, kv_head), value_rows(p.value, at.page, kv_head);
    attend_key(query, keys[at.row], value_rows[at.row], p.head_dim, state);
  }

  // 3. The four shares, weighted by their sums.
  if (lane == 0) maximum[warp] = state.maximum, sum[warp] = state.sum;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) values[warp][i * kWarp + lane] = state.values[i];
  __syncthreads();  // every warp's share is there
  float largest = kNothing, total = 0, weight[kPlainWarps];
#pragma unroll
  for (int w = 0; w < kPlainWarps; ++w) largest = fmaxf(largest, maximum[w]);
#pragma unroll
  for (int w = 0; w < kPlainWarps; ++w) {
    weight[w] = exp2f(maximum[w] - finite_maximum(largest));
    total += sum[w] * weight[w];
  }
  if (total != 0) total += sink_weight<T>(p, head, largest);
  T* to = static_cast<T*>(p.output) + ((b * p.num_rows + row) * p.num_heads + head) * p.head_dim;
  for (int64_t column = threadIdx.x; column < p.head_dim; column += kPlainWarps * kWarp) {
    float value = 0;
#pragma unroll
    for (int w = 0; w < kPlainWarps; ++w) value += values[w][column] * weight[w];
    to[column] = from_float<T>(total == 0 ? 0 : value / total);
  }
}

}  // namespace eagle::cuda
