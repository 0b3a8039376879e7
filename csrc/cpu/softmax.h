// Exponentials and the softmax of one block of scores, sixteen lanes at a time.
#pragma once
#include <cfloat>
#include <cmath>

#include "cpu/floats.h"

namespace eagle::cpu {

template <int L>
EAGLE_INLINE float max_lane(Floats<L> v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  return lane[0];
}

// 2^x for x <= 127, to 2 ulp; 0 below -125 and for -inf; NaN stays NaN. x = n + r with |r| <= 1/2; 2^r by its series.
template <int L>
EAGLE_INLINE Floats<L> exp2(Floats<L> x) {
  const Floats<L> shift = splat<L>(0x1.8p23f);  // adding it rounds x to an integer, kept in the low bits
  const Floats<L> shifted = x + shift;
  const Floats<L> r = x - (shifted - shift);
  Floats<L> y = splat<L>(1.540353039e-4f);
  y = y * r + splat<L>(1.333355815e-3f);
  y = y * r + splat<L>(9.618129108e-3f);
  y = y * r + splat<L>(5.550410866e-2f);
  y = y * r + splat<L>(2.402265070e-1f);
  y = y * r + splat<L>(6.931471806e-1f);
  y = y * r + splat<L>(1.0f);
  y = times_power_of_two(y, shifted);
  y = where_less(x, splat<L>(-125.0f), Floats<L>{}, y);
  return where_equal(x, x, y, x);
}

// Replaces scores[0..count) by 2^(score - maximum) and zeros up to the next multiple of sixteen; returns their sum.
// The maximum starts at -FLT_MAX, so that a block of -inf yields zeros and not NaN.
template <int L>
EAGLE_INLINE float softmax_block(float* scores, int64_t count, float* maximum) {
  const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
  for (int64_t i = count; i < padded; ++i) scores[i] = -INFINITY;
  Floats<L> highest = splat<L>(-FLT_MAX);
  for (int64_t i = 0; i < padded; i += kLanes) {
    const Floats<L> score = load<L>(scores + i);
    highest = where_less(highest, score, score, highest);
  }
  *maximum = max_lane(highest);
  Floats<L> total = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const Floats<L> weight = exp2(load<L>(scores + i) - splat<L>(*maximum));
    store(scores + i, weight);
    total = total + weight;
  }
  return sum(total);
}

}  // namespace eagle::cpu
