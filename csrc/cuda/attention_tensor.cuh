// tree_attention on tensor cores: each warp carries 16 or 32 packed rows through the keys of its block's range.
//
// The committed prefix is not masked. From the first tile that reaches beyond it, and where pages are missing, each row
// tests one word of bits; keys that no row may see are not read at all, so they may hold anything. A NaN in a key's
// value that one row may see does spread to the other rows of its tile: the product adds 0 * NaN.
#pragma once
#include "cuda/attention_split.cuh"
#include "cuda/cp_async.cuh"
#include "cuda/dependent.cuh"
#include "cuda/dynamic_shared.cuh"
#include "cuda/exp2.cuh"
#include "cuda/mma.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

// Over the four lanes that hold a row of a product.
template <class Op>
__device__ float quad_reduce(float value, Op op) {
  value = op(value, __shfl_xor_sync(kAllLanes, value, 1));
  return op(value, __shfl_xor_sync(kAllLanes, value, 2));
}

template <class T, int kDim, int kTiles>
struct TensorAttention {
  static_assert(sizeof(T) == 2 && kDim % 16 == 0 && kDim * kTiles <= 256, "more would not fit the registers");
  static constexpr int kKeys = kDim * kTiles > 128 ? 32 : 64;  // of a tile
  static constexpr int kStages = 2;
  static constexpr int kWarpRows = 16 * kTiles;
  static constexpr int kMaxWarps = 8;
  static constexpr bool kKeepQuery = kTiles == 1 && kDim <= 128;  // in registers
  static constexpr int kRowChunks = (kDim + 63) / 64 * 8;         // 16-byte chunks of a row in shared memory
  static constexpr int kUsedChunks = kDim / 8;
  static constexpr int kTileBytes = kKeys * kRowChunks * 16;
  static constexpr int kStageBytes = 2 * kTileBytes;  // keys, values

  static constexpr int64_t shared_bytes(int64_t warps) {
    return kStages * kStageBytes + warps * kWarpRows * kRowChunks * 16;
  }

  using Query = uint32_t[kTiles][kDim / 16][4];
  using Scores = float[kTiles][kKeys / 8][4];
  using Values = float[kTiles][kDim / 8][4];

  const TreeAttentionParams& p;
  const int b, kv_head, context, rows, first_row;  // first_row of this warp
  const AncestorWords seen;                        // by any row of the request
  const uint32_t stages, query;                    // in shared memory; query of this warp
  const int lane;
  Query q;
  Values acc = {};
  float maximum[kTiles][2], sum[kTiles][2];  // of rows lane / 4 and lane / 4 + 8; sums are this lane's share

  // This block's rows of the query; zeros past the last one and past head_dim.
  static __device__ void load_query(const TreeAttentionParams& p, int64_t b, int64_t kv_head, int64_t first,
                                    int64_t rows, char* shared) {
    const int64_t group = group_size(p);
    const int count = blockDim.x / kWarp * kWarpRows;
    for (int i = threadIdx.x; i < count * kUsedChunks; i += blockDim.x) {
      const int r = i / kUsedChunks, chunk = i % kUsedChunks;
      const int64_t row = first + r;
      uint4 piece = {};
      if (row < rows && chunk * 8 < p.head_dim)
        piece = *reinterpret_cast<const uint4*>(head_data<T>(p.query, b, kv_head * group + row % group) +
                                                row / group * p.query.row_stride + chunk * 8);
      *reinterpret_cast<uint4*>(shared + swizzled<kRowChunks>(r, chunk)) = piece;
    }
  }

  // A key and its value in the cache; where `read` is false, some address.
  struct Source {
    const T *key, *value;
    bool read;
  };

  // Starts the copies of a tile's keys and values; rows that nobody sees, or that are not there, become zeros.
  __device__ void copy_tile(int tile, uint32_t to) const {
    if (p.pages.ids) {
      copy_rows(tile * kKeys, to, [&](int64_t position, bool read) {
        const CacheRow at = read ? locate_in_pages(p.pages, b, position) : CacheRow{};
        const CacheRows<T> keys(p.key, at.page, kv_head), values(p.value, at.page, kv_head);
        return Source{keys[at.row], values[at.row], at.there};
      });
    } else {
      const CacheRows<T> keys(p.key, b, kv_head), values(p.value, b, kv_head);
      copy_rows(tile * kKeys, to, [&](int64_t position, bool read) {
        const int64_t row = read ? position : 0;
        return Source{keys[row], values[row], read};
      });
    }
  }

  template <class Find>
  __device__ void copy_rows(int first, uint32_t to, const Find& find) const {
    const uint64_t wanted = visible_keys(seen, context, first, p.length);
    for (int i = threadIdx.x; i < kKeys * kUsedChunks; i += blockDim.x) {
      const int row = i / kUsedChunks, chunk = i % kUsedChunks;
      const Source from = find(first + row, (wanted >> row & 1) && chunk * 8 < p.head_dim);
      const int column = from.read ? chunk * 8 : 0;
      const uint32_t at = to + swizzled<kRowChunks>(row, chunk);
      copy16_async(at, from.key + column, from.read);
      copy16_async(at + kTileBytes, from.value + column, from.read);
    }
  }

  __device__ void query_fragment(int tile, int step, uint32_t (&to)[4]) const {
    load_matrices(to, query + swizzled<kRowChunks>(tile * 16 + lane % 16, step * 2 + lane / 16));
  }

  // scores = query . keys
  __device__ void score(uint32_t keys, Scores& scores) {
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
        load_matrices(k, keys + swizzled<kRowChunks>(n * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          multiply_add<T>(scores[t][2 * n], a[t], k[0], k[1]);
          multiply_add<T>(scores[t][2 * n + 1], a[t], k[2], k[3]);
        }
      }
    }
  }

  // The row's own ancestors.
  __device__ AncestorWords ancestors(int row) const {
    if (row >= rows) return {};
    const int64_t query_row = b * p.num_rows + row / static_cast<int>(group_size(p));
    return ancestor_words(p.ancestor_mask + query_row * p.mask_words, p.mask_words);
  }

  // Bit i: row first + i of the cache is there. In contiguous caches all are that are read.
  __device__ uint64_t present(int first) const {
    if (!p.pages.ids) return ~uint64_t{0};
    uint64_t bits = 0;
#pragma unroll
    for (int i = 0; i < kKeys; i += kWarp) {
      const bool there = locate_in_pages(p.pages, b, first + i + lane).there;
      bits |= uint64_t{__ballot_sync(kAllLanes, there)} << i;
    }
    return bits | ~low_bits(kKeys);
  }

  __device__ void mask(int first, uint64_t there, Scores& scores) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + t * 16 + half * 8 + lane / 4;
        const uint64_t visible = (visible_keys(ancestors(row), context, first, p.length) & there) >> lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            if (!(visible >> (n * 8 + i) & 1)) scores[t][n][half * 2 + i] = kNothing;
      }
  }

  // Online softmax: scores become weights, and what was summed before is rescaled to the new maximum.
  __device__ void soften(Scores& scores) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float largest = maximum[t][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
          largest = fmaxf(largest, fmaxf(scores[t][n][half * 2], scores[t][n][half * 2 + 1]));
        largest = quad_reduce(largest, Max());  // four lanes hold a row
        const float shift = finite_maximum(largest);
        const float keep = exp2_approx(maximum[t][half] - shift);
        maximum[t][half] = largest;
        sum[t][half] *= keep;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          acc[t][n][half * 2] *= keep;
          acc[t][n][half * 2 + 1] *= keep;
        }
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& weight = scores[t][n][half * 2 + i];
            weight = exp2_approx(weight - shift);
            sum[t][half] += weight;
          }
      }
  }

  // acc += weights . values; a pair of score tiles has the layout of the product's left operand.
  __device__ void add_values(uint32_t values, const Scores& weights) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      uint32_t a[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float (&pair)[4] = weights[t][2 * step + i / 2];
          a[t][i] = pack2<T>(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
        }
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        uint32_t v[4];
        load_matrices_transposed(v, values + swizzled<kRowChunks>(step * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          multiply_add<T>(acc[t][2 * n], a[t], v[0], v[1]);
          multiply_add<T>(acc[t][2 * n + 1], a[t], v[2], v[3]);
        }
      }
    }
  }

  __device__ void attend(int tile, uint32_t stage) {
    const int first = tile * kKeys;
    Scores scores = {};
    score(stage, scores);
    const float factor = p.scale * kLog2E;
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[t][n][i] *= factor;
    const uint64_t there = present(first);
    if (first + kKeys > context || ~there) mask(first, there, scores);
    soften(scores);
    add_values(stage + kTileBytes, scores);
  }

  __device__ void run(int begin, int end) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) maximum[t][half] = kNothing, sum[t][half] = 0;
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (begin + stage < end) copy_tile(begin + stage, stages + stage * kStageBytes);
      commit_copies();  // empty groups keep the count right at the end
    }
    __syncthreads();  // the query is in shared memory
    if constexpr (kKeepQuery)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int step = 0; step < kDim / 16; ++step) query_fragment(t, step, q[t][step]);
    for (int tile = begin; tile < end; ++tile) {
      wait_copies<kStages - 2>();
      __syncthreads();  // everyone's part of this tile has landed, and no one still reads the stage refilled next
      const int next = tile + kStages - 1;
      if (next < end) copy_tile(next, stages + (next - begin) % kStages * kStageBytes);
      commit_copies();
      attend(tile, stages + (tile - begin) % kStages * kStageBytes);
    }
    wait_copies<0>();
  }

  // A lane's two neighbouring values of one row.
  __device__ void store_pair(const AttentionSplit& s, int64_t split, int64_t row, int column, float first,
                             float second) {
    if (s.splits == 1) {
      T* to = static_cast<T*>(p.output) + output_offset(p, b, kv_head, row) + column;
      *reinterpret_cast<uint32_t*>(to) = pack2<T>(first, second);
    } else {
      float* to = s.values + partial_index(p, split, b, kv_head, row) * p.head_dim + column;
      *reinterpret_cast<float2*>(to) = {first, second};
    }
  }

  __device__ void store(const AttentionSplit& s, int64_t split) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float total = quad_reduce(sum[t][half], Sum());
        const int row = first_row + t * 16 + half * 8 + lane / 4;
        if (row >= rows) continue;
        const float factor = total == 0 ? 0 : 1 / total;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          const int column = n * 8 + lane % 4 * 2;
          if (column < p.head_dim)
            store_pair(s, split, row, column, acc[t][n][half * 2] * factor, acc[t][n][half * 2 + 1] * factor);
        }
        if (s.splits > 1 && lane % 4 == 0)
          s.lse[partial_index(p, split, b, kv_head, row)] = maximum[t][half] + log2f(total);  // log2(0) = -inf
      }
  }
};

// The ancestors of all rows of a request together; all threads get them.
__device__ inline AncestorWords seen_by_any(const TreeAttentionParams& p, int64_t b) {
  __shared__ unsigned long long seen[kMaxMaskWords];
  if (threadIdx.x < kMaxMaskWords) seen[threadIdx.x] = 0;
  __syncthreads();  // zeroed
  const int64_t words = p.num_rows * p.mask_words;
  for (int64_t i = threadIdx.x; i < words; i += blockDim.x)
    atomicOr(&seen[i % p.mask_words], static_cast<unsigned long long>(p.ancestor_mask[b * words + i]));
  __syncthreads();  // complete
  return {seen[0], seen[1]};
}

// grid: (row blocks, fastest, times ranges of keys; kv heads; batch), so that blocks that read the same keys run
// together. Ranges divide the keys there are now, not those the cache has room for.
template <class T, int kDim, int kTiles>
__global__ __launch_bounds__(256, 1) void tensor_attention_kernel(const __grid_constant__ TreeAttentionParams p,
                                                                  const __grid_constant__ AttentionSplit s) {
  wait_for_earlier_kernels();
  using Attention = TensorAttention<T, kDim, kTiles>;
  static_assert(Attention::kMaxWarps * kWarp == 256);
  char* shared = dynamic_shared();
  const int64_t split = blockIdx.x / s.row_blocks, b = blockIdx.z, kv_head = blockIdx.y;
  const int64_t context = committed(p, b), rows = packed_rows(p);
  const int64_t block_row = blockIdx.x % s.row_blocks * s.warps * Attention::kWarpRows;
  const int64_t keys = min(context + p.mask_words * kMaskWordBits, p.length);
  const int64_t tiles = (keys + Attention::kKeys - 1) / Attention::kKeys;
  const int64_t range = (tiles + s.splits - 1) / s.splits;
  const int64_t begin = min(split * range, tiles), end = min(begin + range, tiles);

  if (begin == end && s.splits > 1) {  // nothing to see, and the merge does not read the values of such a range
    for (int64_t row = block_row + threadIdx.x; row < min(block_row + s.warps * Attention::kWarpRows, rows);
         row += blockDim.x)
      s.lse[partial_index(p, split, b, kv_head, row)] = kNothing;
    return;
  }
  const bool reaches_tree = end * Attention::kKeys > context;
  const AncestorWords seen = reaches_tree ? seen_by_any(p, b) : AncestorWords{};
  char* query = shared + Attention::kStages * Attention::kStageBytes;
  Attention::load_query(p, b, kv_head, block_row, rows, query);
  const int warp = threadIdx.x / kWarp;
  Attention attention{
      .p = p,
      .b = static_cast<int>(b),
      .kv_head = static_cast<int>(kv_head),
      .context = static_cast<int>(context),
      .rows = static_cast<int>(rows),
      .first_row = static_cast<int>(block_row) + warp * Attention::kWarpRows,
      .seen = seen,
      .stages = shared_address(shared),
      .query = shared_address(query) + warp * Attention::kWarpRows * Attention::kRowChunks * 16,
      .lane = static_cast<int>(threadIdx.x % kWarp),
  };
  attention.run(static_cast<int>(begin), static_cast<int>(end));  // positions are int32
  attention.store(s, split);
}

}  // namespace eagle::cuda
