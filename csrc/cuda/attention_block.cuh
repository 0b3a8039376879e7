// One block of tree_attention: some packed rows of a kv head, and a range of its keys.
#pragma once
#include "cuda/attention_tile.cuh"
#include "cuda/dependent.cuh"
#include "cuda/dynamic_shared.cuh"

namespace eagle::cuda {

// The tiles that one of a request's ranges of keys covers. Ranges divide the keys that are seen now, not those the
// cache has room for.
struct TileRange {
  int begin, end;  // positions are int32

  __device__ TileRange(const TreeAttentionParams& p, const AttentionSplit& s, int split, int context, int tile_keys) {
    const int64_t keys = min(int64_t{context} + p.mask_words * kMaskWordBits, p.length);
    const int tiles = static_cast<int>((keys + tile_keys - 1) / tile_keys);
    const int first = max(window_start(p, context), 0) / tile_keys;
    const int range = (tiles - first + s.splits - 1) / s.splits;
    begin = min(first + split * range, tiles);
    end = min(begin + range, tiles);
  }
};

// The ancestors of all rows of a request together, gathered by each warp for itself.
__device__ inline AncestorWords seen_by_any(const TreeAttentionParams& p, int64_t b) {
  AncestorWords seen = {};
  for (int64_t row = lane_id(); row < p.num_rows; row += kWarp) {
    const AncestorWords of_row = ancestor_words(p.ancestor_mask + (b * p.num_rows + row) * p.mask_words, p.mask_words);
    for (int i = 0; i < kMaxMaskWords; ++i) seen.word[i] |= of_row.word[i];
  }
  return {warp_or(seen.word[0]), warp_or(seen.word[1])};
}

// Marks a range without keys for packed rows first..first + count - 1: the merge does not read its values then.
__device__ inline void store_nothing(const TreeAttentionParams& p, const AttentionSplit& s, int split, int64_t b,
                                     int64_t kv_head, int first, int count) {
  const int end = min(first + count, packed_rows(p));
  for (int row = first + threadIdx.x; row < end; row += blockDim.x)
    s.lse[partial_index(p, split, b, kv_head, row)] = kNothing;
}

// grid: (row blocks, fastest, times ranges of keys; kv heads; batch), so that blocks that read the same keys run
// together. Attention: TensorAttention or WarpgroupAttention.
template <class Attention>
__device__ void attend(const TreeAttentionParams& p, const AttentionSplit& s) {
  static_assert(Attention::kMaxWarps * kWarp == 256, "the kernels' launch bounds");
  const int row_block = blockIdx.x % s.row_blocks, split = blockIdx.x / s.row_blocks;
  const int b = blockIdx.z, kv_head = blockIdx.y, context = committed(p, b);
  const int block_rows = s.warps * Attention::kWarpRows, block_row = row_block * block_rows;
  const TileRange range(p, s, split, context, Attention::kKeys);
  if (range.begin == range.end && s.splits > 1) {
    store_nothing(p, s, split, b, kv_head, block_row, block_rows);
    return;
  }
  const bool reaches_tree = int64_t{range.end} * Attention::kKeys > context;
  const typename Attention::Keys keys{p, b, kv_head, context, reaches_tree ? seen_by_any(p, b) : AncestorWords{}};
  char* stages = dynamic_shared();
  stages += -shared_address(stages) & (Attention::kAlignment - 1);
  char* query = stages + Attention::kStages * Attention::Keys::kStageBytes;
  Attention attention{
      .keys = keys,
      .block_row = block_row,
      .begin = range.begin,
      .end = range.end,
      .stages = shared_address(stages),
      .query = shared_address(query) + warp_id() * Attention::kQueryBytes,
  };
  attention.copy(range.begin);  // first: it comes from farther away than the query
  copy_query<Attention::kWarpRows>(keys, block_row, block_rows, shared_address(query));
  commit_copies();
  attention.run();
  attention.store(s, split);
}

}  // namespace eagle::cuda
