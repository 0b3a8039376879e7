// Log-sum-exp and top k of rows whose logits exist one tile at a time: per tile, then over all tiles of a row.
#pragma once
#include "cuda/cp_async.cuh"
#include "cuda/gemm_tile.cuh"
#include "cuda/ordinal.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr float kNoLogit = -__builtin_huge_valf();

// A logit and its id as one integer: larger logits first, then lower ids. 0 is nothing.
__device__ inline uint64_t candidate(uint32_t key, int64_t id) {
  return static_cast<uint64_t>(key) << 32 | static_cast<uint32_t>(~id);
}
__device__ inline float candidate_logit(uint64_t c) { return from_ordered(static_cast<uint32_t>(c >> 32)); }
__device__ inline int32_t candidate_id(uint64_t c) { return static_cast<int32_t>(~static_cast<uint32_t>(c)); }

// Maximum of some logits and the sum of exp(logit - maximum): NaN if one of them is NaN or +inf, 0 if all are -inf.
struct ExpSum {
  float maximum, sum;
};

// exp(x - maximum), where -inf is no offset.
__device__ inline float shifted_exp(float x, float maximum) { return expf(x - (maximum == kNoLogit ? 0 : maximum)); }

// Epilogue of a product: a warp per row of the tile.
struct TileTopk {
  uint64_t* candidates;  // [rows, tiles, k], descending; 0 behind the last of a tile with fewer than k outputs
  ExpSum* sums;          // [rows, tiles]
  int k;

  static constexpr int kLaneValues = kGemmOutputs / kWarp;

  __device__ void operator()(const GemmTile& tile) const {
    for (int r = warp_id(); r < tile.rows; r += num_warps()) {
      const int64_t at = (tile.first_row + r) * tile.num_output_blocks + tile.output_block;
      const float* logits = tile.values + r * kTilePitch;
      sum_row(logits, tile.outputs, sums + at);
      select_row(logits, tile, candidates + at * k);
    }
  }

  __device__ void sum_row(const float* logits, int64_t outputs, ExpSum* to) const {
    float maximum = kNoLogit, sum = 0;
    for (int64_t o = lane_id(); o < outputs; o += kWarp) maximum = fmaxf(maximum, logits[o]);
    maximum = warp_reduce(maximum, Max());
    for (int64_t o = lane_id(); o < outputs; o += kWarp) sum += shifted_exp(logits[o], maximum);
    sum = warp_reduce(sum, Sum());
    if (lane_id() == 0) *to = {maximum, sum};
  }

  // A lane sorts its outputs; the best of all is then the first of a lane, the lowest of those with the largest key.
  __device__ void select_row(const float* logits, const GemmTile& tile, uint64_t* to) const {
    uint64_t mine[kLaneValues + 1] = {};  // descending; 0 where there are no more
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const int o = lane_id() * kLaneValues + i;
      if (o < tile.outputs) mine[i] = candidate(ordered(logits[o]), tile.first_output + o);
#pragma unroll
      for (int j = i; j > 0; --j) {
        const uint64_t larger = max(mine[j - 1], mine[j]);
        mine[j] = min(mine[j - 1], mine[j]);
        mine[j - 1] = larger;
      }
    }
    const unsigned lower_lanes = (1u << lane_id()) - 1;
    for (int rank = 0; rank < k; ++rank) {
      const uint32_t key = static_cast<uint32_t>(mine[0] >> 32), largest = __reduce_max_sync(kAllLanes, key);
      const unsigned holders = __ballot_sync(kAllLanes, key == largest);
      if (key != largest || (holders & lower_lanes) != 0) continue;
      to[rank] = mine[0];
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) mine[i] = mine[i + 1];
    }
  }
};

// The tiles of one row, merged by one block.
struct MergedRow {
  const uint64_t* candidates;  // [tiles, k]
  const ExpSum* sums;          // [tiles]
  int tiles, k;
  int kept;          // of each tile's candidates in shared memory
  uint64_t* first;   // in shared memory: [tiles, kept], a tile's best that was not taken in the first place
  uint8_t* cursors;  // in shared memory: how many candidates of a tile were taken

  // What a merge may take of shared memory; any GPU has more.
  static constexpr int64_t kSharedBytes = 64 << 10;

  static int kept_candidates(int64_t tiles, int64_t k) {
    return static_cast<int>(min(k, max(int64_t{1}, kSharedBytes / static_cast<int64_t>(sizeof(uint64_t)) / tiles)));
  }
  static int64_t shared_bytes(int64_t tiles, int64_t k) {
    return tiles * (kept_candidates(tiles, k) * static_cast<int64_t>(sizeof(uint64_t)) + 1);
  }

  // log(sum(exp(logits))); NaN if a logit is NaN or +inf, or all are -inf. All threads of the block.
  __device__ float log_sum_exp() const {
    float maximum = kNoLogit, sum = 0;
    for (int i = threadIdx.x; i < tiles; i += blockDim.x) maximum = fmaxf(maximum, sums[i].maximum);
    maximum = block_reduce(maximum, kNoLogit, Max());
    for (int i = threadIdx.x; i < tiles; i += blockDim.x) sum += sums[i].sum * shifted_exp(sums[i].maximum, maximum);
    sum = block_reduce(sum, 0.0f, Sum());
    return sum > 0 ? maximum + logf(sum) : __int_as_float(0x7fffffff);
  }

  // Starts to bring what is kept into shared memory. All threads of the block, which must wait for it.
  __device__ void load() const {
    const uint32_t to = shared_address(first);
    for (int i = threadIdx.x; i < tiles * kept; i += blockDim.x)
      copy8_async(to + i * sizeof(uint64_t), candidates + (kept == k ? i : i / kept * k + i % kept));
    commit_copies();
    for (int i = threadIdx.x; i < tiles; i += blockDim.x) cursors[i] = 0;
  }

  // visit(rank, candidate) for the k best, lane rank % 32 each, all at the end; 0 where there are fewer. One warp,
  // whose lanes share out the tiles.
  template <int kMaxTopk, class Visit>
  __device__ void for_each(const Visit& visit) const {
    uint64_t taken[kMaxTopk / kWarp];
    int tile = 0;
    uint64_t mine = best(tile);
#pragma unroll
    for (int i = 0; i < kMaxTopk / kWarp; ++i)
      for (int rank = i * kWarp; rank < min(k, (i + 1) * kWarp); ++rank) {
        const uint64_t largest = warp_max(mine);
        if (lane_id() == rank % kWarp) taken[i] = largest;
        if (mine != largest || largest == 0) continue;  // ids differ, so exactly one lane goes on
        take(tile);
        mine = best(tile);
      }
#pragma unroll
    for (int i = 0; i < kMaxTopk / kWarp; ++i)
      if (i * kWarp + lane_id() < k) visit(i * kWarp + lane_id(), taken[i]);
  }

 private:
  // The best candidate not yet taken among this lane's tiles, and whose it is.
  __device__ uint64_t best(int& tile) const {
    uint64_t largest = 0;
#pragma unroll 4
    for (int i = lane_id(); i < tiles; i += kWarp) {
      const uint64_t head = first[i * kept];
      if (head > largest) largest = head, tile = i;
    }
    return largest;
  }

  __device__ void take(int tile) const {
    const int taken = ++cursors[tile];
    first[tile * kept] = taken < kept ? first[tile * kept + taken] : taken < k ? candidates[tile * k + taken] : 0;
  }

  static __device__ uint64_t warp_max(uint64_t value) {
    const uint32_t high = static_cast<uint32_t>(value >> 32), largest = __reduce_max_sync(kAllLanes, high);
    const uint32_t low = high == largest ? static_cast<uint32_t>(value) : 0;
    return static_cast<uint64_t>(largest) << 32 | __reduce_max_sync(kAllLanes, low);
  }
};

}  // namespace eagle::cuda
