// The sixteen-lane twin of OneLane, and reductions over lanes.
#pragma once
#include "common/lanes.h"
#include "cpu/simd.h"

namespace eagle::cpu {

typedef int32_t vint __attribute__((vector_size(64)));
typedef uint64_t vlong __attribute__((vector_size(64)));
struct Sixteen {
  using Float = vfloat;
  using Int = vint;
  using Word = vuint;

  static EAGLE_INLINE Float of(float c) { return splat(c); }
  // Through the sign of a difference: GCC compares vectors lane by lane where clones choose the target. A comparison of
  // two infinities of one sign may come out either way; adding 0 keeps -0 from being less than 0.
  static EAGLE_INLINE Int less(Float a, Float b) { return bits(a - b + 0.0f) >> 31; }
  static EAGLE_INLINE Float select(Int mask, Float a, Float b) {
    return from_bits((mask & bits(a)) | (~mask & bits(b)));
  }
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

EAGLE_INLINE vfloat max(vfloat a, vfloat b) { return Sixteen::select(Sixteen::less(a, b), b, a); }
EAGLE_INLINE vfloat min(vfloat a, vfloat b) { return Sixteen::select(Sixteen::less(a, b), a, b); }

EAGLE_INLINE float max_lane(vfloat v) {
  v = max(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = max(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = max(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  v = max(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  return v[0];
}

// Sums of many fp32 terms in double, lane by lane.
class DoubleSum {
 public:
  EAGLE_INLINE void add(vfloat v) {
    half low, high;
    std::memcpy(&low, &v, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    low_ += __builtin_convertvector(low, wide);
    high_ += __builtin_convertvector(high, wide);
  }
  EAGLE_INLINE double total() const {
    const wide lanes = low_ + high_;
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
  }

 private:
  typedef float half __attribute__((vector_size(32)));
  typedef double wide __attribute__((vector_size(64)));
  wide low_ = {}, high_ = {};
};

EAGLE_INLINE bool any(vint mask) {
  const vlong pairs = __builtin_bit_cast(vlong, mask);
  uint64_t together = 0;
  for (int i = 0; i < kLanes / 2; ++i) together |= pairs[i];
  return together != 0;
}

}  // namespace eagle::cpu
