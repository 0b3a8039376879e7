// rms_norm on the CPU: a row's squares are summed in a fixed order, so rows do not depend on their batch.
#include "common/rms_norm.h"

#include <cmath>

#include "cpu/by_dtype.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 16;

template <class T>
EAGLE_INLINE float sum_of_squares(const T* x, int64_t size) {
  vfloat total = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const vfloat v = load(x + i);
    total += v * v;
  }
  float rest = 0;
  for (; i < size; ++i) rest += to_float(x[i]) * to_float(x[i]);
  return sum(total) + rest;
}

template <class T>
EAGLE_INLINE void normalize_rows(const RmsNormParams& p, int64_t begin, int64_t end) {
  const T* weight = static_cast<const T*>(p.weight);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = reinterpret_cast<const T*>(p.input[r]);
    T* out = reinterpret_cast<T*>(p.output[r]);
    const float scale = 1 / std::sqrt(sum_of_squares(x, p.size) / static_cast<float>(p.size) + p.eps);
    for (int64_t i = 0; i < p.size; ++i) {
      const T normalised = from_float<T>(to_float(x[i]) * scale);
      out[i] = from_float<T>(to_float(weight[i]) * to_float(normalised));
    }
  }
}

EAGLE_MULTIVERSION void normalize(const RmsNormParams& p, int64_t begin, int64_t end) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { normalize_rows<decltype(element)>(p, begin, end); });
}

}  // namespace

void rms_norm(const RmsNormParams& p, ParallelFor parallel_for) {
  parallel_for(p.input.count, kElementsPerThread / (p.size + 1) + 1,
               [&](int64_t begin, int64_t end) { normalize(p, begin, end); });
}

}  // namespace eagle::cpu
