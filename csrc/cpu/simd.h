// Vector code without -march: sixteen-lane vectors, element conversions and runtime dispatch by function clones.
#pragma once
#include <cstdint>
#include <cstring>

#include "cpu/level.h"

// A function marked so is compiled for AVX-512, AVX2 and the baseline; the loader picks. Helpers that it calls
// must be EAGLE_INLINE to be compiled along with it. Lambdas are not cloned: keep loops out of them. Where
// AVX2 matters, take cpu/floats.h.
#ifdef EAGLE_X86_LEVELS
#define EAGLE_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EAGLE_MULTIVERSION
#endif
#define EAGLE_INLINE inline __attribute__((always_inline))

#if defined(__GNUC__) && !defined(__clang__) && (__GNUC__ < 12 || (defined(__aarch64__) && __GNUC__ < 13))
#error "the CPU kernels need GCC 12 or newer, on aarch64 13: older ones lack vector shuffles or _Float16"
#endif

namespace eagle::cpu {

constexpr int kLanes = 16;
typedef float vfloat __attribute__((vector_size(64)));
typedef uint32_t vuint __attribute__((vector_size(64)));
typedef uint16_t vshort __attribute__((vector_size(32)));

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  _Float16 value;
};
struct float8 {  // e4m3: sign, four bits of exponent with bias 7, three of mantissa
  uint8_t bits;
};

EAGLE_INLINE float to_float(float x) { return x; }
EAGLE_INLINE float to_float(bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
EAGLE_INLINE float to_float(float16 x) { return static_cast<float>(x.value); }

template <class T>
EAGLE_INLINE T from_float(float x);
template <>
EAGLE_INLINE float from_float<float>(float x) {
  return x;
}
template <>
EAGLE_INLINE bfloat16 from_float<bfloat16>(float x) {  // round to nearest even, NaN kept
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
template <>
EAGLE_INLINE float16 from_float<float16>(float x) {
  return {static_cast<_Float16>(x)};
}

// A shuffle, as GCC turns it into one broadcast, from memory where it can; vfloat{} + x keeps the addition (-0 + 0).
EAGLE_INLINE vfloat splat(float x) {
  const vfloat first = {x};
  return __builtin_shufflevector(first, first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

EAGLE_INLINE vfloat load(const float* p) {
  vfloat v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
EAGLE_INLINE vfloat load(const bfloat16* p) {
  vshort half;
  std::memcpy(&half, p, sizeof half);
  const vuint bits = __builtin_convertvector(half, vuint) << 16;
  return __builtin_bit_cast(vfloat, bits);
}
// Bits of float16 numbers, one a lane, to float32. GCC converts _Float16 vectors lane by lane, this stays in vectors.
template <class Float, class Word>
EAGLE_INLINE Float half_bits_to_float(Word half) {
  const Word magnitude = (half & 0x7fff) << 13;  // exponent and mantissa where float32 has them
  const Word normal = magnitude + ((127 - 15) << 23);
  const Word subnormal_one = Word{} + ((127 - 14) << 23);
  const Word subnormal = (Word)((Float)(magnitude + subnormal_one) - (Float)subnormal_one);
  const Word finite = (half & 0x7c00) == 0 ? subnormal : normal;
  const Word value = (half & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000 : finite;
  return (Float)(value | ((half & 0x8000) << 16));
}
EAGLE_INLINE vfloat load(const float16* p) {
  vshort half;
  std::memcpy(&half, p, sizeof half);
  return half_bits_to_float<vfloat>(__builtin_convertvector(half, vuint));
}

EAGLE_INLINE void store(float* p, vfloat v) { std::memcpy(p, &v, sizeof v); }

// Bits of float32 numbers whose upper halves are those of bfloat16, rounded as from_float rounds.
template <class Word, class Float>
EAGLE_INLINE Word bfloat16_above(Float v) {
  const Word bits = __builtin_bit_cast(Word, v);
  return v != v ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
}

// float32 numbers to the bits of float16 ones, one a lane, rounded as from_float rounds.
template <class Word, class Float>
EAGLE_INLINE Word float_to_half_bits(Float v) {
  const Word bits = __builtin_bit_cast(Word, v);
  const Word magnitude = bits & 0x7fffffff;
  const Word normal = (magnitude - ((127 - 15) << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const Word one_half = Word{} + (126 << 23);  // adding 1/2 leaves a subnormal's bits at the bottom, rounded
  const Word subnormal = (Word)((Float)magnitude + (Float)one_half) - one_half;
  Word result = magnitude < (127 - 14) << 23 ? subnormal : normal;
  result = magnitude > 0x477fefff ? Word{} + 0x7c00 : result;  // 65520 and above round to infinity
  result = magnitude > 0x7f800000 ? Word{} + 0x7e00 : result;
  return result | (bits >> 16 & 0x8000);
}

}  // namespace eagle::cpu
