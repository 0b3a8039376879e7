// draft_qkv_rope on the CPU: heads go to threads; the two halves of a head are projected together and rotated at once.
#include "common/draft_qkv_rope.h"

#include "cpu/by_dtype.h"
#include "cpu/gemm.h"

namespace eagle::cpu {
namespace {

// Elements begin..end-1 of the first half of a head, and their partners in the second half.
struct HalfHeads {
  ProductBlock first, second;
  int64_t head, begin, end, first_row, rows;
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

template <class T>
EAGLE_INLINE void store_halves(const DraftQkvRopeParams& p, const HalfHeads& h) {
  const int64_t half = p.head_dim / 2;
  const bool rotated = h.head < p.num_heads + p.num_kv_heads;
  const T* bias = static_cast<const T*>(p.qkv_bias) + h.head * p.head_dim + h.begin;
  for (int64_t r = 0; r < h.rows; ++r) {
    T* out = reinterpret_cast<T*>(destination(p, h.head, h.first_row + r));
    if (!out) continue;
    const int64_t position = p.position_ids[h.first_row + r];
    const float* cos = p.rope_cos + position * half + h.begin;
    const float* sin = p.rope_sin + position * half + h.begin;
    for_each_sixteen(h.end - h.begin, [&](int64_t i, int64_t count) EAGLE_INLINE_LAMBDA {
      vfloat first = load(h.first.row(r) + i), second = load(h.second.row(r) + i);
      if (p.qkv_bias) {
        first += load_first(bias + i, count);
        second += load_first(bias + half + i, count);
      }
      if (rotated) {
        const vfloat c = load_first(cos + i, count), s = load_first(sin + i, count), before = first;
        first = first * c - second * s;
        second = second * c + before * s;
      }
      store_first(out + h.begin + i, first, count);
      store_first(out + half + h.begin + i, second, count);
    });
  }
}

EAGLE_MULTIVERSION void store(const DraftQkvRopeParams& p, const HalfHeads& h) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { store_halves<decltype(element)>(p, h); });
}

}  // namespace

void draft_qkv_rope(const DraftQkvRopeParams& p, ParallelFor parallel_for) {
  const int64_t half = p.head_dim / 2;
  for_each_product(p.dtype, p.qkv_weight, p.x, p.inner, [&](const Product& product, int64_t first_row) {
    const int64_t grain = product.outputs_per_thread() / p.head_dim + 1;
    parallel_for(p.num_heads + 2 * p.num_kv_heads, grain, [&](int64_t first_head, int64_t last_head) {
      HalfHeads h{.first_row = first_row, .rows = product.rows()};
      for (h.head = first_head; h.head < last_head; ++h.head) {
        for (h.begin = 0; h.begin < half; h.begin += Product::kMaxBlock) {
          h.end = std::min(h.begin + Product::kMaxBlock, half);
          const int64_t start = h.head * p.head_dim;
          product.multiply(start + h.begin, start + h.end, h.first);
          product.multiply(start + half + h.begin, start + half + h.end, h.second);
          store(p, h);
        }
      }
    });
  });
}

}  // namespace eagle::cpu
