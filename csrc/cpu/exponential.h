// exp and silu of sixteen lanes, to 2 ulp.
#pragma once
#include "cpu/floats.h"

namespace eagle::cpu {

// exp(x) for -87 <= x <= 88 and the nearest bound's value beyond; NaN stays NaN. x = n log(2) + r, |r| <= log(2) / 2.
template <int L>
EAGLE_INLINE Floats<L> bounded_exp(Floats<L> x) {
  x = where_less(x, splat<L>(-87.0f), splat<L>(-87.0f), x);
  x = where_less(splat<L>(88.0f), x, splat<L>(88.0f), x);
  const Floats<L> shift = splat<L>(0x1.8p23f);  // adding it rounds to an integer
  const Floats<L> n = (x * splat<L>(1.44269504f) + shift) - shift;
  const Floats<L> r = x - n * splat<L>(0.693359375f) + n * splat<L>(2.12194440e-4f);  // log(2) in two, the first exact
  Floats<L> y = splat<L>(1.0f / 5040);
  y = y * r + splat<L>(1.0f / 720);
  y = y * r + splat<L>(1.0f / 120);
  y = y * r + splat<L>(1.0f / 24);
  y = y * r + splat<L>(1.0f / 6);
  y = y * r + splat<L>(0.5f);
  y = y * r + splat<L>(1.0f);
  y = y * r + splat<L>(1.0f);
  return y * power_of_two(n);
}

// x / (1 + exp(-x))
template <int L>
EAGLE_INLINE Floats<L> silu(Floats<L> x) {
  return x / (bounded_exp(-x) + splat<L>(1.0f));
}

}  // namespace eagle::cpu
