// The softmax of sixteen packed rows of tree_attention, in the registers of a warp.
//
// Scores stay products of query and key: a positive factor brings them to units of log 2, and a fused multiply-add
// applies it as it subtracts the maximum.
//
// Lane l holds rows l / 4 and l / 4 + 8 at columns 8 i + 2 (l % 4) and the next, as products leave their results
// (mma.cuh, wgmma.cuh).
#pragma once
#include "cuda/attention_tile.cuh"
#include "cuda/exp2.cuh"

namespace eagle::cuda {

// Over the four lanes that hold a row.
template <class Op>
__device__ float quad_reduce(float value, Op op) {
  value = op(value, __shfl_xor_sync(kAllLanes, value, 1));
  return op(value, __shfl_xor_sync(kAllLanes, value, 2));
}

template <class T, int kDim, int kKeys>
struct AttentionRows {
  using Scores = float[kKeys / 8][4];
  using Keys = KeyTiles<T, kDim, kKeys>;

  float acc[kDim / 8][4] = {};
  float maximum[2] = {kNothing, kNothing}, sum[2] = {};  // of the two rows; sums are this lane's share

  // Scores of keys that are not `there` or that a row may not see become -inf; `first` is the first of the sixteen
  // rows.
  static __device__ void mask(const Keys& keys, int first, int first_key, uint64_t there, Scores& scores) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint64_t visible = keys.visible(first + half * 8 + lane_id() / 4, first_key) & there;
      const uint64_t of_lane = visible >> lane_id() % 4 * 2;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if (!(of_lane >> (n * 8 + i) & 1)) scores[n][half * 2 + i] = kNothing;
    }
  }

  // Online softmax of one row, in three steps: the maximum takes in new scores, and the factor for what was summed
  // relative to the old one is returned, ...
  __device__ float raise_maximum(int half, float factor, const Scores& scores) {
    float largest = maximum[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) largest = fmaxf(largest, fmaxf(scores[n][half * 2], scores[n][half * 2 + 1]));
    largest = quad_reduce(largest, Max());
    const float keep = exp2_approx((maximum[half] - finite_maximum(largest)) * factor);
    maximum[half] = largest;
    sum[half] *= keep;
    return keep;
  }

  // ... which rescales the values so far, ...
  __device__ void rescale(int half, float keep) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      acc[n][half * 2] *= keep;
      acc[n][half * 2 + 1] *= keep;
    }
  }

  // ... and scores become weights.
  __device__ void weigh(int half, float factor, Scores& scores) {
    const float shift = finite_maximum(maximum[half]) * factor;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& weight = scores[n][half * 2 + i];
        weight = exp2_approx(fmaf(weight, factor, -shift));
        sum[half] += weight;
      }
  }

  // The left operand of the product of weights and values, for the keys 16 step..16 step + 15.
  static __device__ void pack(const Scores& weights, int step, uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float (&pair)[4] = weights[2 * step + i / 2];
      a[i] = pack2<T>(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
    }
  }

  // Writes the rows' averages over this range of keys, and if there are others, the weight of this one.
  __device__ void store(const TreeAttentionParams& p, const AttentionSplit& s, int split, int64_t b, int64_t kv_head,
                        int first) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = quad_reduce(sum[half], Sum());
      const int row = first + half * 8 + lane_id() / 4;
      if (row >= packed_rows(p)) continue;
      if (s.splits == 1 && total != 0)
        total += sink_weight<T>(p, head_of(p, kv_head, row), maximum[half] * score_factor(p));
      const float factor = total == 0 ? 0 : 1 / total;
      const auto each_pair = [&](const auto& store_pair) {
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          const int column = n * 8 + lane_id() % 4 * 2;
          if (column < p.head_dim) store_pair(column, acc[n][half * 2] * factor, acc[n][half * 2 + 1] * factor);
        }
      };
      if (s.splits == 1) {
        T* to = static_cast<T*>(p.output) + output_offset(p, b, kv_head, row);
        each_pair([&](int column, float low, float high) {
          *reinterpret_cast<uint32_t*>(to + column) = pack2<T>(low, high);
        });
      } else {
        const int64_t partial = partial_index(p, split, b, kv_head, row);
        float* to = s.values + partial * p.head_dim;
        each_pair([&](int column, float low, float high) { *reinterpret_cast<float2*>(to + column) = {low, high}; });
        if (lane_id() % 4 == 0) s.lse[partial] = maximum[half] * score_factor(p) + log2f(total);  // log2(0) = -inf
      }
    }
  }
};

}  // namespace eagle::cuda
