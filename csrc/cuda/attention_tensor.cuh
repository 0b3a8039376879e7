// tree_attention by mma.sync: each warp carries 16 or 32 packed rows through the keys of its block's range.
//
// Keys that no row may see are not read at all, so they may hold anything. A NaN in a key's value that one row may see
// does spread to the other rows of its tile: the product adds 0 * NaN.
#pragma once
#include "cuda/attention_block.cuh"
#include "cuda/attention_rows.cuh"
#include "cuda/mma.cuh"

namespace eagle::cuda {

template <class T, int kDim, int kTiles>
struct TensorAttention {
  static_assert(sizeof(T) == 2 && kDim % 16 == 0 && kDim * kTiles <= 256, "more would not fit the registers");
  static constexpr int kKeys = kDim * kTiles > 128 ? 32 : 64;  // of a tile
  static constexpr int kStages = kDim * kTiles > 64 ? 2 : 4;   // small ones, so that enough is under way
  static constexpr int kWarpRows = 16 * kTiles;
  static constexpr int kMaxWarps = 8;
  static constexpr int kWarpMultiple = 4;                         // a lone warp would take long to ask for a tile
  static constexpr int kAlignment = 128;                          // of tiles
  static constexpr bool kKeepQuery = kTiles == 1 && kDim <= 128;  // in registers

  using Keys = KeyTiles<T, kDim, kKeys>;
  using Rows = AttentionRows<T, kDim, kKeys>;
  using Scores = typename Rows::Scores[kTiles];
  static constexpr int kQueryBytes = tile_bytes(kWarpRows, kDim);  // of a warp

  static constexpr int64_t shared_bytes(int64_t warps) { return kStages * Keys::kStageBytes + warps * kQueryBytes; }

  const Keys keys;
  const int block_row;           // the first of this block
  const int begin, end;          // tiles
  const uint32_t stages, query;  // in shared memory; query of this warp
  Rows rows[kTiles];
  uint32_t q[kTiles][kDim / 16][4];

  __device__ int first_row(int tile) const { return block_row + warp_id() * kWarpRows + tile * 16; }
  __device__ uint32_t stage(int tile) const { return stages + (tile - begin) % kStages * Keys::kStageBytes; }

  __device__ void query_fragment(int tile, int step, uint32_t (&to)[4]) const {
    load_matrices(to, query + tile_offset<kWarpRows>(tile * 16 + lane_id() % 16, step * 2 + lane_id() / 16));
  }

  // scores = query . keys
  __device__ void score(uint32_t tile, Scores& scores) {
    const int lane = lane_id();
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t a[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        if constexpr (kKeepQuery) {
#pragma unroll
          for (int i = 0; i < 4; ++i) a[t][i] = q[t][step][i];
        } else {
          query_fragment(t, step, a[t]);
        }
      }
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t k[4];
        load_matrices(k, tile + tile_offset<kKeys>(n * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          multiply_add<T>(scores[t][2 * n], a[t], k[0], k[1]);
          multiply_add<T>(scores[t][2 * n + 1], a[t], k[2], k[3]);
        }
      }
    }
  }

  // acc += weights . values
  __device__ void add_values(uint32_t tile, const Scores& weights) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      uint32_t a[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) Rows::pack(weights[t], step, a[t]);
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        uint32_t v[4];
        load_matrices_transposed(v, tile + tile_offset<kKeys>(step * 16 + lane_id() % 16, n * 2 + lane_id() / 16));
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          multiply_add<T>(rows[t].acc[2 * n], a[t], v[0], v[1]);
          multiply_add<T>(rows[t].acc[2 * n + 1], a[t], v[2], v[3]);
        }
      }
    }
  }

  __device__ void attend(int tile) {
    Scores scores = {};
    score(stage(tile), scores);
    const int first = tile * kKeys;
    const uint64_t there = keys.present(first);
    if (!keys.all_visible(first, there))
#pragma unroll
      for (int t = 0; t < kTiles; ++t) Rows::mask(keys, first_row(t), first, there, scores[t]);
    const float factor = score_factor(keys.p);
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        rows[t].rescale(half, rows[t].raise_maximum(half, factor, scores[t]));
        rows[t].weigh(half, factor, scores[t]);
      }
    add_values(stage(tile) + Keys::kTileBytes, scores);
  }

  // Starts the copies of a tile, if there is one.
  __device__ void copy(int tile) const {
    if (tile < end) keys.copy(tile, stage(tile), blockDim.x);
  }

  __device__ void run() {
#pragma unroll
    for (int ahead = 1; ahead < kStages - 1; ++ahead) {
      copy(begin + ahead);
      commit_copies();  // empty groups keep the count right at the end
    }
    wait_copies<kStages - 2>();
    __syncthreads();  // the query is in shared memory
    if constexpr (kKeepQuery)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int step = 0; step < kDim / 16; ++step) query_fragment(t, step, q[t][step]);
    const bool has_rows = first_row(0) < packed_rows(keys.p);  // a warp without any only copies
    for (int tile = begin; tile < end; ++tile) {
      wait_copies<kStages - 2>();
      __syncthreads();  // everyone's part of this tile has landed, and no one still reads the stage refilled next
      copy(tile + kStages - 1);
      commit_copies();
      if (has_rows) attend(tile);
    }
    wait_copies<0>();
  }

  __device__ void store(const AttentionSplit& s, int split) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) rows[t].store(keys.p, s, split, keys.b, keys.kv_head, first_row(t));
  }
};

template <class T, int kDim, int kTiles>
__global__ __launch_bounds__(256, 1) void tensor_attention_kernel(const __grid_constant__ TreeAttentionParams p,
                                                                  const __grid_constant__ AttentionSplit s) {
  wait_for_earlier_kernels();
  attend<TensorAttention<T, kDim, kTiles>>(p, s);
}

}  // namespace eagle::cuda
