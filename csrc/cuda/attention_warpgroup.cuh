// tree_attention by wgmma on Hopper: each warpgroup carries 64 packed rows through the keys of its block's range.
//
// While one tile's values are multiplied, the next tile's scores become weights: the tensor cores work during the
// softmax. The pipeline is that of FlashAttention-3 within a warpgroup (Shah et al. 2024, arXiv 2407.08608), with
// copies of 16 bytes so that pages of any size stay possible. What attention_tensor.cuh says of NaN holds here too.
#pragma once
#include "cuda/attention_block.cuh"
#include "cuda/attention_rows.cuh"
#include "cuda/mma.cuh"
#include "cuda/wgmma.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "wgmma needs the architecture 90a: name it in EAGLE_CUDA_ARCHS in place of 90"
#endif

namespace eagle::cuda {

template <class T, int kDim>
struct WarpgroupAttention {
  static_assert(sizeof(T) == 2 && kDim % kPanelColumns == 0 && kDim <= 128, "more would not fit the registers");
  static constexpr int kKeys = 64;  // of a tile
  static constexpr int kStages = 4;
  static constexpr int kWarpRows = 16;
  static constexpr int kMaxWarps = 8;
  static constexpr int kWarpMultiple = kMaxWarps;  // two warpgroups: so few rows that one is enough go by mma.sync
  static constexpr int kAlignment = 1024;

  using Keys = KeyTiles<T, kDim, kKeys>;
  using Rows = AttentionRows<T, kDim, kKeys>;
  using Weights = uint32_t[kKeys / 16][4];
  static constexpr int kPanelBytes = kKeys * kPanelRowBytes;
  static constexpr int kQueryBytes = tile_bytes(kWarpRows, kDim);  // of a warp

  static constexpr int64_t shared_bytes(int64_t warps) {
    return kAlignment + kStages * Keys::kStageBytes + warps * kQueryBytes;
  }

  const Keys keys;
  const int block_row;           // the first of this block
  const int begin, end;          // tiles
  const uint32_t stages, query;  // in shared memory; query of this warp
  Rows rows;
  uint32_t q[kDim / 16][4];
  Sums64 scores;    // of the next tile
  Weights weights;  // of the tile whose values are next

  __device__ int first_row() const { return block_row + warp_id() * kWarpRows; }
  __device__ uint32_t stage(int tile) const { return stages + (tile - begin) % kStages * Keys::kStageBytes; }

  // Starts the copies of a tile, if there is one.
  __device__ void copy(int tile) const {
    if (tile < end) keys.copy(tile, stage(tile), kMaxWarps * kWarp);
  }

  // All but the kPending youngest groups of copies have landed for everyone, and no one reads an older tile any more.
  template <int kPending>
  __device__ void await_copies() const {
    wait_copies<kPending>();
    show_to_products();
    __syncthreads();
  }

  // scores = query . keys
  __device__ void start_scores(int tile) {
    const uint64_t panels = panel_descriptor(stage(tile));
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int at = step / 4 * kPanelBytes + step % 4 * 32;
      multiply_64<T, Panel::kColumnsOfOperand>(scores, q[step], panels + described(at), step > 0);
    }
    commit_products();
  }

  // rows.acc += weights . values
  __device__ void start_values(int tile) {
    const uint64_t panels = panel_descriptor(stage(tile) + Keys::kTileBytes);
#pragma unroll
    for (int panel = 0; panel < kDim / kPanelColumns; ++panel)
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step) {
        const int at = panel * kPanelBytes + step * 16 * kPanelRowBytes;
        multiply_64<T, Panel::kRowsOfOperand>(values(panel), weights[step], panels + described(at), true);
      }
    commit_products();
  }

  __device__ Sums64& values(int panel) { return reinterpret_cast<Sums64&>(rows.acc[panel * 8]); }

  // The scores of a tile become weights; returns what rescales the values so far.
  __device__ float2 soften(int tile, uint64_t there) {
    const int first = tile * kKeys;
    if (!keys.all_visible(first, there)) Rows::mask(keys, first_row(), first, there, scores);
    const float factor = score_factor(keys.p);
    const float2 keep = {rows.raise_maximum(0, factor, scores), rows.raise_maximum(1, factor, scores)};
    rows.weigh(0, factor, scores);
    rows.weigh(1, factor, scores);
    return keep;
  }

  __device__ void pack_weights() {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) Rows::pack(scores, step, weights[step]);
  }

  __device__ void await_values() {
    wait_products<0>();
#pragma unroll
    for (int panel = 0; panel < kDim / kPanelColumns; ++panel) settle(values(panel));
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) settle(weights[step]);
  }

  __device__ void rescale_values(float2 keep) {
    rows.rescale(0, keep.x);
    rows.rescale(1, keep.y);
  }

  __device__ void load_query_fragments() {
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step)
      load_matrices(q[step], query + tile_offset<kWarpRows>(lane_id() % 16, step * 2 + lane_id() / 16));
  }

  __device__ void run() {
#pragma unroll
    for (int ahead = 1; ahead < kStages - 1; ++ahead) {
      copy(begin + ahead);
      commit_copies();  // empty groups keep the count right at the end
    }
    await_copies<kStages - 2>();  // of the query and the first tile
    if (begin == end) return;
    load_query_fragments();
    begin_products();
    start_scores(begin);
    wait_products<0>();
    settle(scores);
    soften(begin, keys.present(begin * kKeys));
    pack_weights();
    for (int tile = begin; tile + 1 < end; ++tile) {
      await_copies<kStages - 3>();  // of the next tile
      begin_products();
      start_scores(tile + 1);
      start_values(tile);
      copy(tile + kStages - 1);
      commit_copies();
      const uint64_t there = keys.present((tile + 1) * kKeys);
      wait_products<1>();
      settle(scores);
      const float2 keep = soften(tile + 1, there);
      settle(scores);
      // A branch that all threads take alike: it keeps the assembler from waiting for the values before the softmax.
      if (tile == begin) {
        await_values();
        rescale_values(keep);
      } else {
        await_values();
        const bool risen = keep.x != 1 || keep.y != 1;  // late maxima seldom are
        if (__any_sync(kAllLanes, risen)) rescale_values(keep);
      }
      pack_weights();
    }
    begin_products();
    start_values(end - 1);
    await_values();
    wait_copies<0>();
  }

  __device__ void store(const AttentionSplit& s, int split) const {
    rows.store(keys.p, s, split, keys.b, keys.kv_head, first_row());
  }
};

template <class T, int kDim>
__global__ __launch_bounds__(256, 1) void warpgroup_attention_kernel(const __grid_constant__ TreeAttentionParams p,
                                                                     const __grid_constant__ AttentionSplit s) {
  wait_for_earlier_kernels();
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  attend<WarpgroupAttention<T, kDim>>(p, s);
#endif
}

}  // namespace eagle::cuda
