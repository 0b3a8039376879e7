// rope on the CPU: each product and sum rounds by itself, as transformers' eager mode does.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include "common/rope.h"
#include "cpu/by_dtype.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 16;

// The first half of a row turns by -second, the second by +first.
template <int L, class T>
EAGLE_INLINE void rotate_sixteen(const T* x, const T* cos, const T* sin, int64_t half, int64_t count, T* out) {
  const Floats<L> first = load_first<L>(x, count), second = load_first<L>(x + half, count);
  const Floats<L> first_turned = rounded<T>(second * load_first<L>(sin, count));
  const Floats<L> second_turned = rounded<T>(first * load_first<L>(sin + half, count));
  store_first(out, rounded<T>(first * load_first<L>(cos, count)) - first_turned, count);
  store_first(out + half, rounded<T>(second * load_first<L>(cos + half, count)) + second_turned, count);
}

template <int L, class T>
EAGLE_INLINE void rotate_row(const T* x, const T* cos, const T* sin, int64_t half, T* out) {
  for_each_sixteen(half, [&](int64_t i, int64_t count)
                             EAGLE_INLINE_LAMBDA { rotate_sixteen<L>(x + i, cos + i, sin + i, half, count, out + i); });
}

// Rows begin..end-1 of [batch, heads, rows].
template <int L, class T>
EAGLE_INLINE void rotate_rows(const RopeParams& p, const Rows& x, void* output, int64_t heads, int64_t begin,
                              int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t at = r / (heads * p.rows) * p.rows + r % p.rows;
    rotate_row<L>(reinterpret_cast<const T*>(x[r]), reinterpret_cast<const T*>(p.cos[at]),
                  reinterpret_cast<const T*>(p.sin[at]), p.head_dim / 2, static_cast<T*>(output) + r * p.head_dim);
  }
}

template <int L>
EAGLE_INLINE void rotate_at(const RopeParams& p, const Rows& x, void* output, int64_t heads, int64_t begin,
                            int64_t end) {
  by_dtype(p.dtype, [&](auto element)
                        EAGLE_INLINE_LAMBDA { rotate_rows<L, decltype(element)>(p, x, output, heads, begin, end); });
}
EAGLE_AT_EACH_LEVEL(rotate,
                    (const RopeParams& p, const Rows& x, void* output, int64_t heads, int64_t begin, int64_t end),
                    (p, x, output, heads, begin, end))

}  // namespace

void rope(const RopeParams& p, ParallelFor parallel_for) {
  const int64_t grain = kElementsPerThread / (p.head_dim + 1) + 1;
  parallel_for(p.query.count, grain,
               [&](int64_t begin, int64_t end) { rotate(p, p.query, p.query_output, p.query_heads, begin, end); });
  parallel_for(p.key.count, grain,
               [&](int64_t begin, int64_t end) { rotate(p, p.key, p.key_output, p.key_heads, begin, end); });
}

}  // namespace eagle::cpu
