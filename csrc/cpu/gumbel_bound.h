// A cheap test for tokens whose Gumbel noise cannot lift their score over a given one.
#pragma once
#include "cpu/noise.h"

namespace eagle::cpu {

constexpr float kLargestGumbel = 22.9f;

// At least exp(x) (1 + 2^-10), for x in [-80, 60]: straight lines between the powers of two.
EAGLE_INLINE vfloat exp_bound(vfloat x) {
  x = min(max(x, splat(-80.0f)), splat(60.0f));
  const vint bits = Sixteen::to_int(x * (1.44269504f * 0x1p23f) + 127 * 0x1p23f);
  return Sixteen::from_bits(bits) * (1 + 0x1p-10f);
}

// 1 - u of the uniform behind the bits, rounded down.
EAGLE_INLINE vfloat one_minus_uniform(vuint bits) {
  const vuint distance = ~bits >> 1;
  return Sixteen::to_float(__builtin_bit_cast(vint, distance)) * 0x1p-31f;
}

// Tokens whose noise may lift them over `best`: noise > best - score needs 1 - u <= -log(u) < exp(score - best).
EAGLE_INLINE vint may_win(vfloat score, vuint bits, float best) {
  return ~Sixteen::less(exp_bound(score - best), one_minus_uniform(bits));
}

}  // namespace eagle::cpu
