// silu(x) = x / (1 + exp(-x)), sixteen lanes at a time. Include cpu/no_contraction.h first.
#pragma once
#include "common/elementary.h"
#include "cpu/sixteen.h"

namespace eagle::cpu {

EAGLE_INLINE vfloat silu(vfloat x) {
  const vfloat limit = splat(88.0f);  // of exp; silu(-88) is -5e-37
  const vfloat minus_x = -x > limit ? limit : -x;
  return x / (exp<Sixteen>(minus_x) + 1.0f);
}

}  // namespace eagle::cpu
