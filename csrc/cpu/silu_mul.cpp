// silu_mul on the CPU: sixteen elements at a time, rounded between the two steps as torch does.
#include "common/silu_mul.h"

#include "cpu/by_dtype.h"
#include "cpu/exponential.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 15;

template <int L, class T>
EAGLE_INLINE void gate_rows(const SiluMulParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* gate = reinterpret_cast<const T*>(p.gate[r]);
    const T* up = reinterpret_cast<const T*>(p.up[r]);
    T* out = static_cast<T*>(p.output) + r * p.size;
    for_each_sixteen(p.size, [&](int64_t i, int64_t count) EAGLE_INLINE_LAMBDA {
      store_first(out + i, rounded<T>(silu(load_first<L>(gate + i, count))) * load_first<L>(up + i, count), count);
    });
  }
}

template <int L>
EAGLE_INLINE void gate_any_at(const SiluMulParams& p, int64_t begin, int64_t end) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { gate_rows<L, decltype(element)>(p, begin, end); });
}
EAGLE_AT_EACH_LEVEL(gate_any, (const SiluMulParams& p, int64_t begin, int64_t end), (p, begin, end))

}  // namespace

void silu_mul(const SiluMulParams& p, ParallelFor parallel_for) {
  parallel_for(p.gate.count, kElementsPerThread / (p.size + 1) + 1,
               [&](int64_t begin, int64_t end) { gate_any(p, begin, end); });
}

}  // namespace eagle::cpu
