// draft_qkv_rope on the CPU: heads go to threads; a head is projected, then normed, rotated and stored row by row.
#include "common/draft_qkv_rope.h"

#include <cmath>
#include <memory>

#include "cpu/by_dtype.h"
#include "cpu/gemm.h"

namespace eagle::cpu {
namespace {

// A head's products with some rows: block i of each half has the elements from i * Product::kMaxBlock on.
struct Head {
  std::unique_ptr<ProductBlock[]> first, second;
  int64_t index, first_row, rows;
};

// Where the head's row goes: the query output, the key or value cache, or nowhere.
char* destination(const DraftQkvRopeParams& p, int64_t head, int64_t row) {
  const int64_t b = row / p.rows, q = row % p.rows;
  if (head < p.num_heads)
    return static_cast<char*>(p.query) + ((b * p.num_heads + head) * p.rows + q) * p.head_dim * size_of(p.dtype);
  const int64_t kv_head = (head - p.num_heads) % p.num_kv_heads;
  const CacheRow to = locate(p.pages, b, p.cache_rows[row]);
  const Rows& cache = head < p.num_heads + p.num_kv_heads ? p.key_cache : p.value_cache;
  return to.there ? cache[(to.page * p.num_kv_heads + kv_head) * p.pages.page_size + to.row] : nullptr;
}

// Elements of the first half of a head, and their partners in the second half.
template <int L>
struct Pairs {
  Floats<L> first, second;
};

// `count` pairs of a row from the i-th on, before they are normed; the others are zero.
template <int L, class T>
EAGLE_INLINE Pairs<L> projected(const DraftQkvRopeParams& p, const Head& head, int64_t r, int64_t i, int64_t count) {
  const int64_t block = i / Product::kMaxBlock, at = i % Product::kMaxBlock, half = p.head_dim / 2;
  Pairs<L> x{load_first<L>(head.first[block].row(r) + at, count), load_first<L>(head.second[block].row(r) + at, count)};
  if (p.qkv_bias) {
    const T* bias = static_cast<const T*>(p.qkv_bias) + head.index * p.head_dim + i;
    x.first = x.first + load_first<L>(bias, count);
    x.second = x.second + load_first<L>(bias + half, count);
  }
  return x;
}

template <int L, class T>
EAGLE_INLINE float inverse_rms(const DraftQkvRopeParams& p, const Head& head, int64_t r) {
  Floats<L> squares = {};
  for_each_sixteen(p.head_dim / 2, [&](int64_t i, int64_t count) EAGLE_INLINE_LAMBDA {
    const Pairs x = projected<L, T>(p, head, r, i, count);
    squares = squares + (x.first * x.first + x.second * x.second);
  });
  return 1 / std::sqrt(sum(squares) / static_cast<float>(p.head_dim) + p.norm_eps);
}

template <int L, class T>
EAGLE_INLINE void store_rows(const DraftQkvRopeParams& p, const Head& head) {
  const int64_t half = p.head_dim / 2;
  const bool is_query = head.index < p.num_heads, is_value = head.index >= p.num_heads + p.num_kv_heads;
  const T* norm = static_cast<const T*>(is_value ? nullptr : is_query ? p.q_norm_weight : p.k_norm_weight);
  for (int64_t r = 0; r < head.rows; ++r) {
    T* out = reinterpret_cast<T*>(destination(p, head.index, head.first_row + r));
    if (!out) continue;
    const int64_t position = p.position_ids[head.first_row + r];
    const float* cos = p.rope_cos + position * half;
    const float* sin = p.rope_sin + position * half;
    const float factor = norm ? inverse_rms<L, T>(p, head, r) : 1;
    for_each_sixteen(half, [&](int64_t i, int64_t count) EAGLE_INLINE_LAMBDA {
      auto [first, second] = projected<L, T>(p, head, r, i, count);
      if (norm) {
        first = first * (splat<L>(factor) * load_first<L>(norm + i, count));
        second = second * (splat<L>(factor) * load_first<L>(norm + half + i, count));
      }
      if (!is_value) {
        const Floats<L> c = load_first<L>(cos + i, count), s = load_first<L>(sin + i, count), before = first;
        first = first * c - second * s;
        second = second * c + before * s;
      }
      store_first(out + i, first, count);
      store_first(out + half + i, second, count);
    });
  }
}

template <int L>
EAGLE_INLINE void store_at(const DraftQkvRopeParams& p, const Head& head) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { store_rows<L, decltype(element)>(p, head); });
}
EAGLE_AT_EACH_LEVEL(store, (const DraftQkvRopeParams& p, const Head& head), (p, head))

}  // namespace

void draft_qkv_rope(const DraftQkvRopeParams& p, ParallelFor parallel_for) {
  const int64_t half = p.head_dim / 2, blocks = (half + Product::kMaxBlock - 1) / Product::kMaxBlock;
  for_each_product(p.dtype, p.qkv_weight, p.x, p.inner, [&](const Product& product, int64_t first_row) {
    const int64_t grain = product.outputs_per_thread() / p.head_dim + 1;
    parallel_for(p.num_heads + 2 * p.num_kv_heads, grain, [&](int64_t first_head, int64_t last_head) {
      Head head{.first = std::make_unique_for_overwrite<ProductBlock[]>(blocks),
                .second = std::make_unique_for_overwrite<ProductBlock[]>(blocks),
                .first_row = first_row,
                .rows = product.rows()};
      for (head.index = first_head; head.index < last_head; ++head.index) {
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t begin = block * Product::kMaxBlock, end = std::min(begin + Product::kMaxBlock, half);
          const int64_t start = head.index * p.head_dim;
          product.multiply(start + begin, start + end, head.first[block]);
          product.multiply(start + half + begin, start + half + end, head.second[block]);
        }
        store(p, head);
      }
    });
  });
}

}  // namespace eagle::cpu
