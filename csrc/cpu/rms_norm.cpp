// rms_norm on the CPU: a row's squares are summed in a fixed order, so rows do not depend on their batch.
#include "common/rms_norm.h"

#include <cmath>

#include "cpu/by_dtype.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 16;

template <int L, class T>
EAGLE_INLINE float sum_of_squares(const T* x, int64_t size) {
  Floats<L> total = {};
  for_each_sixteen(size, [&](int64_t i, int64_t count) EAGLE_INLINE_LAMBDA {
    const Floats<L> v = load_first<L>(x + i, count);
    total = v * v + total;
  });
  return sum(total);
}

template <int L, class T>
EAGLE_INLINE void normalize_rows(const RmsNormParams& p, int64_t begin, int64_t end) {
  const T* weight = static_cast<const T*>(p.weight);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = reinterpret_cast<const T*>(p.input[r]);
    T* out = reinterpret_cast<T*>(p.output[r]);
    const float scale = 1 / std::sqrt(sum_of_squares<L>(x, p.size) / static_cast<float>(p.size) + p.eps);
    for_each_sixteen(p.size, [&](int64_t i, int64_t count) EAGLE_INLINE_LAMBDA {
      const Floats<L> normed = rounded<T>(load_first<L>(x + i, count) * splat<L>(scale));
      store_first(out + i, load_first<L>(weight + i, count) * normed, count);
    });
  }
}

template <int L>
EAGLE_INLINE void normalize_at(const RmsNormParams& p, int64_t begin, int64_t end) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { normalize_rows<L, decltype(element)>(p, begin, end); });
}
EAGLE_AT_EACH_LEVEL(normalize, (const RmsNormParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void rms_norm(const RmsNormParams& p, ParallelFor parallel_for) {
  parallel_for(p.input.count, kElementsPerThread / (p.size + 1) + 1,
               [&](int64_t begin, int64_t end) { normalize(p, begin, end); });
}

}  // namespace eagle::cpu
