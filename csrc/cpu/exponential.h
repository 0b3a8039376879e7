// exp and silu of sixteen lanes, to 2 ulp.
#pragma once
#include "cpu/simd.h"

namespace eagle::cpu {

// exp(x) for -87 <= x <= 88 and the nearest bound's value beyond; NaN stays NaN. x = n log(2) + r, |r| <= log(2) / 2.
EAGLE_INLINE vfloat bounded_exp(vfloat x) {
  typedef int32_t vint __attribute__((vector_size(64)));
  x = x < splat(-87.0f) ? splat(-87.0f) : x;
  x = x > splat(88.0f) ? splat(88.0f) : x;
  const vfloat shift = splat(0x1.8p23f);  // adding it rounds to an integer
  const vfloat n = (x * splat(1.44269504f) + shift) - shift;
  const vfloat r = x - n * splat(0.693359375f) + n * splat(2.12194440e-4f);  // log(2) in two parts, the first exact
  vfloat y = splat(1.0f / 5040);
  y = y * r + splat(1.0f / 720);
  y = y * r + splat(1.0f / 120);
  y = y * r + splat(1.0f / 24);
  y = y * r + splat(1.0f / 6);
  y = y * r + splat(0.5f);
  y = y * r + splat(1.0f);
  y = y * r + splat(1.0f);
  const vint power = (__builtin_convertvector(n, vint) + 127) << 23;
  return y * __builtin_bit_cast(vfloat, power);
}

// x / (1 + exp(-x))
EAGLE_INLINE vfloat silu(vfloat x) { return x / (bounded_exp(-x) + splat(1.0f)); }

}  // namespace eagle::cpu
