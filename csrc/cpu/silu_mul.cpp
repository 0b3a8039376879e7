// silu_mul on the CPU: sixteen elements at a time, rounded between the two steps as torch does.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include <algorithm>

#include "common/silu_mul.h"
#include "cpu/by_dtype.h"
#include "cpu/silu.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 15;

template <class T>
EAGLE_INLINE void gate_sixteen(const T* gate, const T* up, T* out) {
  float activated[kLanes];
  store(activated, silu(load(gate)));
  for (int i = 0; i < kLanes; ++i) out[i] = from_float<T>(to_float(from_float<T>(activated[i])) * to_float(up[i]));
}

template <class T>
EAGLE_INLINE void gate_rows(const SiluMulParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* gate = reinterpret_cast<const T*>(p.gate[r]);
    const T* up = reinterpret_cast<const T*>(p.up[r]);
    T* out = static_cast<T*>(p.output) + r * p.size;
    int64_t i = 0;
    for (; i + kLanes <= p.size; i += kLanes) gate_sixteen(gate + i, up + i, out + i);
    if (i < p.size) {
      T gate_rest[kLanes] = {}, up_rest[kLanes] = {}, out_rest[kLanes];
      std::copy(gate + i, gate + p.size, gate_rest);
      std::copy(up + i, up + p.size, up_rest);
      gate_sixteen(gate_rest, up_rest, out_rest);
      std::copy(out_rest, out_rest + (p.size - i), out + i);
    }
  }
}

EAGLE_MULTIVERSION void gate_any(const SiluMulParams& p, int64_t begin, int64_t end) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { gate_rows<decltype(element)>(p, begin, end); });
}

}  // namespace

void silu_mul(const SiluMulParams& p, ParallelFor parallel_for) {
  parallel_for(p.gate.count, kElementsPerThread / (p.size + 1) + 1,
               [&](int64_t begin, int64_t end) { gate_any(p, begin, end); });
}

}  // namespace eagle::cpu
