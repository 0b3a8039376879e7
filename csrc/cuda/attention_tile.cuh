// What a block of tree_attention keeps in shared memory: its rows of the query, and tiles of keys and values.
#pragma once
#include "cuda/attention_split.cuh"
#include "cuda/cp_async.cuh"
#include "cuda/reduce.cuh"
#include "cuda/swizzle.cuh"

namespace eagle::cuda {

// Starts copies of a row of the cache or the query by eight threads, each its chunk of every panel of a tile of kRows;
// `from` and `to` are this thread's first chunk. Zeros past head_dim, and where the row is not `there`: `from` must lie
// in some row even so.
template <int kRows, int kColumns, class T>
__device__ void copy_row(uint32_t to, const T* from, int64_t head_dim, bool there) {
#pragma unroll
  for (int panel = 0; panel < panels(kColumns); ++panel) {
    const int column = panel * kPanelColumns + threadIdx.x % 8 * 8;
    if (column >= kColumns) continue;  // products do not read it
    copy16_async(to + panel * kRows * kPanelRowBytes, from + panel * kPanelColumns, there && column < head_dim);
  }
}

// The keys and values of one kv head, kKeys at a time.
template <class T, int kDim, int kKeys>
struct KeyTiles {
  using Element = T;
  static constexpr int kColumns = kDim;
  static constexpr int kTileBytes = tile_bytes(kKeys, kDim);
  static constexpr int kStageBytes = 2 * kTileBytes;  // keys, values

  const TreeAttentionParams& p;
  const int b, kv_head, context;
  const AncestorWords seen;                                                 // by any row of the request
  const CacheRows<T> keys{p.key, b, kv_head}, values{p.value, b, kv_head};  // where the cache is contiguous

  // Starts the copies of a tile's keys and values by a block of `threads`; rows that nobody sees, or that are not
  // there, become zeros. A thread copies from every `step`th row: a multiple of eight, so that all are swizzled alike.
  __device__ void copy(int tile, uint32_t to, int threads) const {
    const int first = tile * kKeys, begin = threadIdx.x / 8, chunk = threadIdx.x % 8, step = threads / 8;
    to += swizzled(begin, chunk);
    if (first + kKeys <= context && first >= window_start(p, context) && !p.pages.ids) {  // most tiles
      const T *key = keys[first + begin] + chunk * 8, *value = values[first + begin] + chunk * 8;
#pragma unroll
      for (int row = 0; row < kKeys; row += step) {
        copy_rows(to + row * kPanelRowBytes, key, value, true);
        key += step * keys.row_stride;
        value += step * values.row_stride;
      }
      return;
    }
    const uint64_t to_any = visible_keys(seen, context, first, p.length) & keys_from(window_start(p, context), first);
    const uint64_t wanted = to_any >> begin;
    for (int row = 0; row < kKeys; row += step) {
      const CacheRow at = wanted >> row & 1 ? locate(p.pages, b, first + begin + row) : CacheRow{};
      const T* key = CacheRows<T>(p.key, at.page, kv_head)[at.row] + chunk * 8;
      const T* value = CacheRows<T>(p.value, at.page, kv_head)[at.row] + chunk * 8;
      copy_rows(to + row * kPanelRowBytes, key, value, at.there);
    }
  }

  // This thread's part of a key and its value.
  __device__ void copy_rows(uint32_t to, const T* key, const T* value, bool there) const {
    copy_row<kKeys, kDim>(to, key, p.head_dim, there);
    copy_row<kKeys, kDim>(to + kTileBytes, value, p.head_dim, there);
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

  // No row needs a mask: the tile ends within the committed prefix, begins within all windows, and its pages are there.
  __device__ bool all_visible(int first, uint64_t there) const {
    return first + kKeys <= context && first >= window_start(p, context) + kMaxNodes && !~there;
  }

  // Bit i: a packed row may see row first + i of the cache.
  __device__ uint64_t visible(int row, int first) const {
    AncestorWords ancestors = {};
    const int query_row = row / group_size(p);
    if (query_row < p.num_rows)
      ancestors = ancestor_words(p.ancestor_mask + (b * p.num_rows + query_row) * p.mask_words, p.mask_words);
    return keys_in_window(p, ancestors, context, first);
  }
};

// Starts copies of `count` packed rows of the query from `first` on, one tile of kRows after the other; zeros past the
// last row. They belong to the group that is committed next.
template <int kRows, class Keys>
__device__ void copy_query(const Keys& keys, int first, int count, uint32_t to) {
  using T = typename Keys::Element;
  const TreeAttentionParams& p = keys.p;
  const int group = group_size(p), rows = packed_rows(p), chunk = threadIdx.x % 8;
  for (int r = threadIdx.x / 8; r < count; r += blockDim.x / 8) {
    const int row = min(first + r, rows - 1);
    const T* from =
        head_data<T>(p.query, keys.b, keys.kv_head * group + row % group) + row / group * p.query.row_stride;
    const uint32_t at = to + r / kRows * tile_bytes(kRows, Keys::kColumns) + swizzled(r % kRows, chunk);
    copy_row<kRows, Keys::kColumns>(at, from + chunk * 8, p.head_dim, first + r < rows);
  }
}

}  // namespace eagle::cuda
