// The sixteen-lane twin of OneLane, and reductions over lanes.
#pragma once
#include "common/lanes.h"
#include "cpu/simd.h"

namespace eagle::cpu {

typedef int32_t vint __attribute__((vector_size(64)));
typedef uint64_t vlong __attribute__((vector_size(64)));
typedef double vdouble __attribute__((vector_size(128)));

struct Sixteen {
  using Float = vfloat;
  using Int = vint;
  using Word = vuint;

  static EAGLE_INLINE Float of(float c) { return splat(c); }
  static EAGLE_INLINE Int as_int(Word x) { return __builtin_bit_cast(vint, x); }
  static EAGLE_INLINE Float to_float(Int x) { return __builtin_convertvector(x, vfloat); }
  static EAGLE_INLINE Int to_int(Float x) { return __builtin_convertvector(x, vint); }
  static EAGLE_INLINE Float add(Float a, Float b) { return a + b; }
  static EAGLE_INLINE Float mul(Float a, Float b) { return a * b; }
  static EAGLE_INLINE Float div(Float a, Float b) { return a / b; }
  static EAGLE_INLINE Int bits(Float x) { return __builtin_bit_cast(vint, x); }
  static EAGLE_INLINE Float from_bits(Int x) { return __builtin_bit_cast(vfloat, x); }
  static EAGLE_INLINE Word mul_high(Word a, uint32_t b, Word& low) {
    constexpr uint64_t kLow = 0xffffffffu;
    const vlong pair = __builtin_bit_cast(vlong, a);
    const vlong even = (pair & kLow) * static_cast<uint64_t>(b);
    const vlong odd = (pair >> 32) * static_cast<uint64_t>(b);
    const vlong low_words = (even & kLow) | (odd << 32);
    const vlong high_words = (even >> 32) | (odd & ~kLow);
    low = __builtin_bit_cast(vuint, low_words);
    return __builtin_bit_cast(vuint, high_words);
  }
};

EAGLE_INLINE vfloat max(vfloat a, vfloat b) { return a > b ? a : b; }

EAGLE_INLINE float max_lane(vfloat v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  return lane[0];
}

EAGLE_INLINE double sum(vdouble v) {
  double lane[kLanes];
  std::memcpy(lane, &v, sizeof v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

EAGLE_INLINE bool any(vint mask) {
  const vlong pairs = __builtin_bit_cast(vlong, mask);
  uint64_t together = 0;
  for (int i = 0; i < kLanes / 2; ++i) together |= pairs[i];
  return together != 0;
}

}  // namespace eagle::cpu
