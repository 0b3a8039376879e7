// Sixteen floats in as many vectors as an instruction set needs for them.
//
// GCC takes vectors that are wider than the processor's apart, for shuffles, comparisons and conversions element by
// element. So a kernel that has to be fast without AVX-512 too is a template of L, the lanes of a vector.
#pragma once
#include "cpu/level.h"
#include "cpu/vectors.h"

namespace eagle::cpu {

template <int L>
struct Floats {
  static constexpr int kParts = kLanes / L;
  using Part = typename Lanes<L>::Float;
  Part part[kParts];
};

#define EAGLE_EACH_PART _Pragma("GCC unroll 4") for (int i = 0; i < Floats<L>::kParts; ++i)

template <int L>
EAGLE_INLINE Floats<L> splat(float x) {
  Floats<L> result;
  EAGLE_EACH_PART result.part[i] = broadcast<typename Floats<L>::Part>(x, kEachLane<L>);
  return result;
}

template <int L>
EAGLE_INLINE Floats<L> operator+(Floats<L> a, Floats<L> b) {
  EAGLE_EACH_PART a.part[i] += b.part[i];
  return a;
}
template <int L>
EAGLE_INLINE Floats<L> operator-(Floats<L> a, Floats<L> b) {
  EAGLE_EACH_PART a.part[i] -= b.part[i];
  return a;
}
template <int L>
EAGLE_INLINE Floats<L> operator*(Floats<L> a, Floats<L> b) {
  EAGLE_EACH_PART a.part[i] *= b.part[i];
  return a;
}
template <int L>
EAGLE_INLINE Floats<L> operator/(Floats<L> a, Floats<L> b) {
  EAGLE_EACH_PART a.part[i] /= b.part[i];
  return a;
}
template <int L>
EAGLE_INLINE Floats<L> operator-(Floats<L> a) {
  EAGLE_EACH_PART a.part[i] = -a.part[i];
  return a;
}

// sum + a * b, rounded once where the instruction set can.
template <int L>
EAGLE_INLINE Floats<L> multiply_add(Floats<L> sum, Floats<L> a, Floats<L> b) {
  EAGLE_EACH_PART sum.part[i] = multiply_add<L>(sum.part[i], a.part[i], b.part[i]);
  return sum;
}

// a < b ? yes : no, in each lane.
template <int L>
EAGLE_INLINE Floats<L> where_less(Floats<L> a, Floats<L> b, Floats<L> yes, Floats<L> no) {
  EAGLE_EACH_PART no.part[i] = a.part[i] < b.part[i] ? yes.part[i] : no.part[i];
  return no;
}

template <int L>
EAGLE_INLINE Floats<L> where_equal(Floats<L> a, Floats<L> b, Floats<L> yes, Floats<L> no) {
  EAGLE_EACH_PART no.part[i] = a.part[i] == b.part[i] ? yes.part[i] : no.part[i];
  return no;
}

// x * 2^n, by the exponent's bits; n: whole, in the lowest bits of n + 0x1.8p23
template <int L>
EAGLE_INLINE Floats<L> times_power_of_two(Floats<L> x, Floats<L> shifted) {
  using Word = typename Lanes<L>::Word;
  EAGLE_EACH_PART x.part[i] = (typename Floats<L>::Part)((Word)x.part[i] + ((Word)shifted.part[i] << 23));
  return x;
}

// 2^n for n whole and -127 < n < 128.
template <int L>
EAGLE_INLINE Floats<L> power_of_two(Floats<L> n) {
  using Integers = typename Lanes<L>::Integer;
  EAGLE_EACH_PART n.part[i] = (typename Floats<L>::Part)((__builtin_convertvector(n.part[i], Integers) + 127) << 23);
  return n;
}

template <int L>
EAGLE_INLINE Floats<L> load(const float* p) {
  Floats<L> result;
  EAGLE_EACH_PART result.part[i] = read<typename Floats<L>::Part>(p + i * L);
  return result;
}
template <int L>
EAGLE_INLINE Floats<L> load(const bfloat16* p) {
  Floats<L> result;
  EAGLE_EACH_PART {
    const auto words = to_words<L>(read<typename Lanes<L>::Short>(p + i * L));
    result.part[i] = (typename Floats<L>::Part)(words << 16);
  }
  return result;
}
template <int L>
EAGLE_INLINE Floats<L> load(const float16* p) {
  Floats<L> result;
  EAGLE_EACH_PART result.part[i] = halves_to_floats<L>(read<typename Lanes<L>::Short>(p + i * L));
  return result;
}

template <int L>
EAGLE_INLINE void store(float* p, Floats<L> v) {
  EAGLE_EACH_PART write(p + i * L, v.part[i]);
}
template <int L>
EAGLE_INLINE void store(bfloat16* p, Floats<L> v) {
  using Word = typename Lanes<L>::Word;
  EAGLE_EACH_PART write(p + i * L,
                        __builtin_convertvector(bfloat16_above<Word>(v.part[i]) >> 16, typename Lanes<L>::Short));
}
template <int L>
EAGLE_INLINE void store(float16* p, Floats<L> v) {
  using Word = typename Lanes<L>::Word;
  EAGLE_EACH_PART write(p + i * L,
                        __builtin_convertvector(float_to_half_bits<Word>(v.part[i]), typename Lanes<L>::Short));
}

// The first `count` of sixteen elements; the others read as zero and are not written.
template <int L, class T>
EAGLE_INLINE Floats<L> load_first(const T* p, int64_t count) {
  if (count == kLanes) return load<L>(p);
  T padded[kLanes] = {};
  std::memcpy(padded, p, count * sizeof(T));
  return load<L>(padded);
}
template <int L, class T>
EAGLE_INLINE void store_first(T* p, Floats<L> v, int64_t count) {
  if (count == kLanes) return store(p, v);
  T padded[kLanes];
  store(padded, v);
  std::memcpy(p, padded, count * sizeof(T));
}

// v rounded to T's precision.
template <class T, int L>
EAGLE_INLINE Floats<L> rounded(Floats<L> v) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    using Word = typename Lanes<L>::Word;
    EAGLE_EACH_PART v.part[i] = (typename Floats<L>::Part)(bfloat16_above<Word>(v.part[i]) & 0xffff0000u);
  } else if constexpr (std::is_same_v<T, float16>) {
    T values[kLanes];
    store(values, v);
    v = load<L>(values);
  }
  return v;
}

// Sum of the lanes in a fixed order (pairwise), so that results do not depend on the instruction set's width.
template <int L>
EAGLE_INLINE float sum(Floats<L> v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

}  // namespace eagle::cpu
