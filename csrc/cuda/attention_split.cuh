// How tree_attention is divided among blocks, and where the parts of a row meet.
#pragma once
#include "common/tree_attention.h"
#include "cuda/convert.cuh"
#include "cuda/visible_keys.cuh"

namespace eagle::cuda {

// Rows of one kv head are packed: row = query row * group + head within the group.
struct AttentionSplit {
  int splits;      // ranges of keys
  int row_blocks;  // of a kv head's packed rows
  int warps;       // of a block
  float* values;   // [splits, batch, num_kv_heads, rows, head_dim]: each range's own softmax average
  float* lse;      // [splits, batch, num_kv_heads, rows]: its log-sum-exp in units of log 2, -inf if it saw nothing
};

// Divisions of 32 bits, where those of 64 would be calls.
__device__ inline int group_size(const TreeAttentionParams& p) {
  return static_cast<int>(p.num_heads) / static_cast<int>(p.num_kv_heads);
}
__device__ inline int packed_rows(const TreeAttentionParams& p) { return static_cast<int>(p.num_rows) * group_size(p); }

// Rows of the committed prefix: at most the cache has, and its positions are int32.
__device__ inline int committed(const TreeAttentionParams& p, int64_t b) {
  return min(max(p.context_len[b], 0), static_cast<int>(p.length));
}

__device__ inline int64_t partial_index(const TreeAttentionParams& p, int64_t split, int64_t b, int64_t kv_head,
                                        int64_t row) {
  return ((split * p.batch + b) * p.num_kv_heads + kv_head) * packed_rows(p) + row;
}

// Committed rows before it no row sees: its window ends behind them. Negative where nothing is before it.
__device__ inline int window_start(const TreeAttentionParams& p, int context) { return context - p.window; }

// What a row with these ancestors sees, as bits for cache rows first + i: the last p.window rows of its sequence.
__device__ inline uint64_t keys_in_window(const TreeAttentionParams& p, const AncestorWords& ancestors, int context,
                                          int first) {
  const int start = window_start(p, context) + __popcll(ancestors.word[0]) + __popcll(ancestors.word[1]);
  return visible_keys(ancestors, context, first, p.length) & keys_from(start, first);
}

template <class T>
__device__ const T* head_data(const HeadsView& view, int64_t b, int64_t head) {
  return static_cast<const T*>(view.data) + b * view.batch_stride + head * view.head_stride;
}

// The rows of one head in one page of a cache, which in a contiguous cache is the request.
template <class T>
struct CacheRows {
  const T* first;
  int64_t row_stride;

  __device__ CacheRows(const HeadsView& cache, int64_t page, int64_t kv_head)
      : first(head_data<T>(cache, page, kv_head)), row_stride(cache.row_stride) {}
  __device__ const T* operator[](int64_t row) const { return first + row * row_stride; }
};

// The head of a packed row.
__device__ inline int64_t head_of(const TreeAttentionParams& p, int64_t kv_head, int row) {
  return kv_head * group_size(p) + row % group_size(p);
}

// Element offset of a packed row in the output [batch, num_rows, num_heads, head_dim].
__device__ inline int64_t output_offset(const TreeAttentionParams& p, int64_t b, int64_t kv_head, int row) {
  return ((b * p.num_rows + row / group_size(p)) * p.num_heads + head_of(p, kv_head, row)) * p.head_dim;
}

// A softmax under way: the largest score so far, in units of log 2, and the sum of 2^(score - largest).
constexpr float kLog2E = 1.44269504f;
constexpr float kNothing = -__builtin_huge_valf();

// Products of query and key times it are scores in units of log 2.
__device__ inline float score_factor(const TreeAttentionParams& p) { return p.scale * kLog2E; }

// A head's sink, which takes its share of the weights and has no value: its weight relative to `maximum`, in units of
// log 2.
template <class T>
__device__ float sink_weight(const TreeAttentionParams& p, int64_t head, float maximum) {
  return p.sinks ? exp2f(to_float(static_cast<const T*>(p.sinks)[head]) * kLog2E - maximum) : 0;
}

// What to subtract from scores: a row that saw nothing has no maximum, and -inf - -inf would be NaN.
__device__ inline float finite_maximum(float maximum) { return maximum == kNothing ? 0.0f : maximum; }

}  // namespace eagle::cuda
