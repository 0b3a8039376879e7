// What a block of tree_attention keeps in shared memory: its rows of the query, and tiles of keys and values.
#pragma once
#include "cuda/attention_split.cuh"
#include "cuda/cp_async.cuh"
#include "cuda/reduce.cuh"
#include "cuda/swizzle.cuh"

namespace eagle::cuda {

// The keys and values of one kv head, kKeys at a time.
template <class T, int kDim, int kKeys>
struct KeyTiles {
  using Element = T;
  static constexpr int kColumns = kDim;
  static constexpr int kChunks = kDim / 8;  // of a row, that products read
  static constexpr int kTileBytes = tile_bytes(kKeys, kDim);
  static constexpr int kStageBytes = 2 * kTileBytes;  // keys, values

  const TreeAttentionParams& p;
  const int b, kv_head, context;
  const AncestorWords seen;  // by any row of the request

  // Starts the copies of a tile's keys and values by a block of `threads`; rows that nobody sees, or that are not
  // there, become zeros. A thread copies one chunk of every `step`th row.
  __device__ void copy(int tile, uint32_t to, int threads) const {
    constexpr int kRowThreads = 8 * panels(kDim);
    const int chunk = threadIdx.x % kRowThreads, begin = threadIdx.x / kRowThreads, step = threads / kRowThreads;
    if (chunk >= kChunks) return;
    const int first = tile * kKeys;
    const auto each_row = [&](const auto& copy_row) {
#pragma unroll
      for (int row = begin; row < begin + kKeys; row += step)
        if (kKeys % step == 0 || row < kKeys) copy_row(row);
    };
    if (first + kKeys <= context && chunk * 8 < p.head_dim && !p.pages.ids) {  // most tiles
      const CacheRows<T> keys(p.key, b, kv_head), values(p.value, b, kv_head);
      each_row([&](int row) { copy_chunk(row, chunk, to, keys[first + row], values[first + row]); });
      return;
    }
    const uint64_t wanted = chunk * 8 < p.head_dim ? visible_keys(seen, context, first, p.length) : 0;
    each_row([&](int row) {
      const CacheRow at = wanted >> row & 1 ? locate(p.pages, b, first + row) : CacheRow{};
      const CacheRows<T> keys(p.key, at.page, kv_head), values(p.value, at.page, kv_head);
      copy_chunk(row, chunk, to, keys[at.row], values[at.row], at.there);
    });
  }

  // Zeros where not `read`; the addresses must be some row's even so.
  __device__ void copy_chunk(int row, int chunk, uint32_t to, const T* key, const T* value, bool read = true) const {
    const uint32_t at = to + tile_offset<kKeys>(row, chunk);
    copy16_async(at, key + chunk * 8, read);
    copy16_async(at + kTileBytes, value + chunk * 8, read);
  }

  // Bit i: row first + i of the cache is there. In contiguous caches all are that are read. Whole warps only.
  __device__ uint64_t present(int first) const {
    if (!p.pages.ids) return ~uint64_t{0};
    uint64_t bits = 0;
#pragma unroll
    for (int i = 0; i < kKeys; i += kWarp) {
      const bool there = locate_in_pages(p.pages, b, first + i + lane_id()).there;
      bits |= uint64_t{__ballot_sync(kAllLanes, there)} << i;
    }
    return bits | ~low_bits(kKeys);
  }

  // No row needs a mask: the tile ends within the committed prefix, and its pages are there.
  __device__ bool all_visible(int first, uint64_t there) const { return first + kKeys <= context && !~there; }

  // Bit i: a packed row may see row first + i of the cache.
  __device__ uint64_t visible(int row, int first) const {
    AncestorWords ancestors = {};
    const int query_row = row / group_size(p);
    if (query_row < p.num_rows)
      ancestors = ancestor_words(p.ancestor_mask + (b * p.num_rows + query_row) * p.mask_words, p.mask_words);
    return visible_keys(ancestors, context, first, p.length);
  }
};

// Starts copies of `count` packed rows of the query from `first` on, one tile of kRows after the other; zeros past the
// last row and past head_dim. They belong to the group that is committed next.
template <int kRows, class Keys>
__device__ void copy_query(const Keys& keys, int first, int count, uint32_t to) {
  using T = typename Keys::Element;
  const TreeAttentionParams& p = keys.p;
  const int group = group_size(p), rows = packed_rows(p);
  for (int i = threadIdx.x; i < count * Keys::kChunks; i += blockDim.x) {
    const int r = i / Keys::kChunks, chunk = i % Keys::kChunks;
    const bool there = first + r < rows && chunk * 8 < p.head_dim;
    const int row = there ? first + r : 0;
    const T* from =
        head_data<T>(p.query, keys.b, keys.kv_head * group + row % group) + row / group * p.query.row_stride;
    const int at = r / kRows * tile_bytes(kRows, Keys::kColumns) + tile_offset<kRows>(r % kRows, chunk);
    copy16_async(to + at, from + (there ? chunk * 8 : 0), there);
  }
}

}  // namespace eagle::cuda
