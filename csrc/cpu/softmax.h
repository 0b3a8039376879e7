// Exponentials and the softmax of one block of scores, sixteen lanes at a time.
#pragma once
#include <cfloat>
#include <cmath>

#include "cpu/simd.h"

namespace eagle::cpu {

typedef int32_t vint __attribute__((vector_size(64)));

EAGLE_INLINE vfloat max(vfloat a, vfloat b) { return a > b ? a : b; }

EAGLE_INLINE float max_lane(vfloat v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  return lane[0];
}

// 2^x for x <= 127, to 2 ulp; 0 below -125 and for -inf; NaN stays NaN. x = n + r with |r| <= 1/2; 2^r by its series.
EAGLE_INLINE vfloat exp2(vfloat x) {
  const vfloat shift = splat(0x1.8p23f);  // adding it rounds x to an integer, kept in the low bits
  const vfloat shifted = x + shift;
  const vfloat r = x - (shifted - shift);
  vfloat y = splat(1.540353039e-4f);
  y = y * r + splat(1.333355815e-3f);
  y = y * r + splat(9.618129108e-3f);
  y = y * r + splat(5.550410866e-2f);
  y = y * r + splat(2.402265070e-1f);
  y = y * r + splat(6.931471806e-1f);
  y = y * r + splat(1.0f);
  const vuint bits = __builtin_bit_cast(vuint, y) + (__builtin_bit_cast(vuint, shifted) << 23);
  y = __builtin_bit_cast(vfloat, bits);
  y = x < splat(-125.0f) ? vfloat{} : y;
  return x == x ? y : x;
}

// Replaces scores[0..count) by 2^(score - maximum) and zeros up to the next multiple of sixteen; returns their sum.
// The maximum starts at -FLT_MAX, so that a block of -inf yields zeros and not NaN.
EAGLE_INLINE float softmax_block(float* scores, int64_t count, float* maximum) {
  const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
  for (int64_t i = count; i < padded; ++i) scores[i] = -INFINITY;
  vfloat highest = splat(-FLT_MAX);
  for (int64_t i = 0; i < padded; i += kLanes) highest = max(load(scores + i), highest);
  *maximum = max_lane(highest);
  vfloat total = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const vfloat weight = exp2(load(scores + i) - splat(*maximum));
    store(scores + i, weight);
    total += weight;
  }
  return sum(total);
}

}  // namespace eagle::cpu
