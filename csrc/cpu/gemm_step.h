// How an instruction set multiplies a step of input rows by four weight rows: its vectors, loads, products and sums.
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/gemm.h"
#include "cpu/vectors.h"

namespace eagle::cpu {

// An fp8 number's bits, spread to the fields of a float16, are that number divided by 256 (the biases are 7 and 15),
// subnormals too: no table, no case, and what is missing goes into the scale.
constexpr float kFp8Factor = 256;
template <int kLanes>
EAGLE_INLINE Pair<kLanes> load_pair(const float8* p) {
  using Short = typename Lanes<kLanes>::Short;
  using Signed = typename Lanes<kLanes>::SignedShort;
  constexpr int16_t kFields = static_cast<int16_t>(0xbf80);  // a shift keeps the sign and copies it into the exponent
  const auto words = read<Signed>(p);
  return {halves_to_floats<kLanes>((Short)(words << 8 >> 1 & kFields)),
          halves_to_floats<kLanes>((Short)(words >> 1 & kFields))};
}

// Consecutive elements as even and odd ones.
template <int kLanes, int... i>
EAGLE_INLINE Pair<kLanes> split(const Pair<kLanes>& pair, std::integer_sequence<int, i...>) {
  return {__builtin_shufflevector(pair.first, pair.second, 2 * i...),
          __builtin_shufflevector(pair.first, pair.second, 2 * i + 1 ...)};
}

// The last elements of a row, zeros behind them; nothing past the row is read.
template <int kLanes, class T>
EAGLE_INLINE Pair<kLanes> load_rest(const T* p, int64_t count) {
  T padded[2 * kLanes] = {};
  std::memcpy(padded, p, count * sizeof(T));
  return load_pair<kLanes>(padded);
}

// Lanes in groups of four: (a0, b0, a1, b1) and (a2, b2, a3, b3); likewise in pairs of lanes.
template <class V, int... i>
EAGLE_INLINE V add_interleaved(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 4 / 2 + i % 2 * n)...) +
         __builtin_shufflevector(a, b, (i / 4 * 4 + i % 4 / 2 + i % 2 * n + 2)...);
}
template <class V, int... i>
EAGLE_INLINE V add_interleaved_pairs(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 2 + i % 4 / 2 * n)...) +
         __builtin_shufflevector(a, b, (i / 4 * 4 + i % 2 + i % 4 / 2 * n + 2)...);
}

// Four accumulators to their four sums, each by the same tree.
template <int kLanes>
EAGLE_INLINE void store_sums(const typename Lanes<kLanes>::Float* acc, float* out) {
  const auto groups = add_interleaved_pairs(add_interleaved(acc[0], acc[1], kEachLane<kLanes>),
                                            add_interleaved(acc[2], acc[3], kEachLane<kLanes>), kEachLane<kLanes>);
  if constexpr (kLanes == 4) {
    std::memcpy(out, &groups, 16);
  } else {
    using Quarter = typename Lanes<4>::Float;
    Quarter part[kLanes / 4];
    std::memcpy(part, &groups, sizeof part);
    Quarter sum;
    if constexpr (kLanes == 8) sum = part[0] + part[1];
    if constexpr (kLanes == 16) sum = (part[0] + part[2]) + (part[1] + part[3]);
    std::memcpy(out, &sum, 16);
  }
}

template <int kLanes, int kRows>
using Accumulators = typename Lanes<kLanes>::Float[kRows][Product::kTileOutputs];

// 2 * kLanes elements at a time by fused multiply-adds; input rows are packed as float32. T: elements of the weight.
template <int kVectorLanes, class T>
struct FusedStep {
  static constexpr int kLanes = kVectorLanes, kWidth = 2 * kLanes;  // kWidth: elements of a step
  static constexpr int kMaxRows = kLanes == 16 ? 6 : 3;  // of a tile: 24 accumulators of 32 registers, or 12 of 16
  static constexpr float kFactor = kFp8Factor;           // of an fp8 weight over what load makes of it
  using ForFp8 = FusedStep<kLanes, float8>;
  using Widened = FusedStep<kLanes, std::conditional_t<std::is_same_v<T, float8>, bfloat16, T>>;  // see widen
  using Element = T;
  using Packed = float;

  // An input row as the lanes of a weight want it, of its own type or of fp8: a step's elements every `stride`.
  template <class In>
  static EAGLE_INLINE void pack(const In* row, int64_t inner, float* out, int64_t stride) {
    for (int64_t k = 0; k < inner; k += kWidth, out += stride) {
      auto pair = k + kWidth <= inner ? load_pair<kLanes>(row + k) : load_rest<kLanes>(row + k, inner - k);
      if constexpr (std::is_same_v<T, float8> && !std::is_same_v<In, bfloat16>)
        pair = split<kLanes>(pair, kEachLane<kLanes>);
      std::memcpy(out, &pair, sizeof pair);
    }
  }

  // Fp8 weights as bfloat16, in the same lanes: exact, and quickly loaded.
  static EAGLE_INLINE void widen(const float8* row, int64_t count, bfloat16* out) {
    using Word = typename Lanes<kLanes>::Word;
    int64_t k = 0;
    for (; k + kWidth <= count; k += kWidth) {
      const auto pair = load_pair<kLanes>(row + k);
      write(out + k, (Word)pair.first >> 16 | (Word)pair.second);
    }
    if (k == count) return;
    const auto pair = load_rest<kLanes>(row + k, count - k);
    const Word rest = (Word)pair.first >> 16 | (Word)pair.second;
    std::memcpy(out + k, &rest, (count - k) * sizeof *out);
  }

  // A full tile takes every register: its accumulators, a value of each input row and one weight. So its weights are
  // read again for the second half of their elements, and GCC must not see that they are the same.
  template <int kRows>
  static EAGLE_INLINE void accumulate(Accumulators<kLanes, kRows>& acc, const float* x, const T* const* weight,
                                      int64_t k) {
    accumulate_half<kRows, 0>(acc, x, weight, k);
#ifdef EAGLE_X86_LEVELS
    if constexpr (kRows == kMaxRows) asm("" : "+r"(k));
#endif
    accumulate_half<kRows, 1>(acc, x, weight, k);
  }

  template <int kRows, int kHalf>
  static EAGLE_INLINE void accumulate_half(Accumulators<kLanes, kRows>& acc, const float* x, const T* const* weight,
                                           int64_t k) {
    using Float = typename Lanes<kLanes>::Float;
    Float value[kRows];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) value[r] = read<Float>(x + r * kWidth + kHalf * kLanes);
#pragma GCC unroll 4
    for (int t = 0; t < Product::kTileOutputs; ++t) {
      const auto pair = load_pair<kLanes>(weight[t] + k);
      Float w = kHalf == 0 ? pair.first : pair.second;
      if constexpr (std::is_same_v<T, bfloat16> && kHalf == 1 && kRows == kMaxRows)
        w = (Float)upper_halves<kLanes>(read<typename Lanes<kLanes>::Word>(weight[t] + k));
#pragma GCC unroll 6
      for (int r = 0; r < kRows; ++r) acc[r][t] = multiply_add<kLanes>(acc[r][t], value[r], w);
    }
  }
};

struct Fp8DotStep;

// 32 bfloat16 at a time by AVX-512's dot products of pairs: half the instructions, and nothing is converted.
struct DotStep {
  static constexpr int kLanes = 16, kWidth = 2 * kLanes, kMaxRows = 6;
  using ForFp8 = Fp8DotStep;
  using Widened = DotStep;
  using Element = bfloat16;
  using Packed = bfloat16;
  using Word = Lanes<kLanes>::Word;

  static EAGLE_INLINE void pack(const bfloat16* row, int64_t inner, bfloat16* out, int64_t stride) {
    int64_t k = 0;
    for (; k + kWidth <= inner; k += kWidth, out += stride) write(out, read<Word>(row + k));
    if (k == inner) return;
    bfloat16 rest[kWidth] = {};
    std::memcpy(rest, row + k, (inner - k) * sizeof *row);
    write(out, read<Word>(rest));
  }

  template <int kRows>
  static EAGLE_INLINE void accumulate(Accumulators<kLanes, kRows>& acc, const bfloat16* x,
                                      const bfloat16* const* weight, int64_t k) {
    Word w[Product::kTileOutputs];
#pragma GCC unroll 4
    for (int t = 0; t < Product::kTileOutputs; ++t) w[t] = read<Word>(weight[t] + k);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const auto pairs = read<Word>(x + r * kWidth);
#pragma GCC unroll 4
      for (int t = 0; t < Product::kTileOutputs; ++t) acc[r][t] = add_dots(acc[r][t], pairs, w[t]);
    }
  }
};

// Every fp8 number is a bfloat16 number: the low and the high byte of each, by the bits below its sign.
struct Fp8Bytes {
  uint8_t low[128], high[128];

  constexpr Fp8Bytes() : low(), high() {
    constexpr uint16_t kSubnormal[8] = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};  // times 2^-9
    for (int magnitude = 0; magnitude < 128; ++magnitude) {
      const int bits = magnitude < 8 ? kSubnormal[magnitude] : (magnitude << 4) + ((127 - 7) << 7);
      low[magnitude] = static_cast<uint8_t>(bits);
      high[magnitude] = static_cast<uint8_t>(bits >> 8);
    }
  }
};
alignas(64) constexpr Fp8Bytes kFp8Bytes;

// Dot products with fp8 weights, 64 at a time, looked up as bytes and put together by twos.
struct Fp8DotStep {
  static constexpr int kLanes = 16, kWidth = 64, kMaxRows = 4;  // 16 accumulators, 8 weights, 4 tables
  static constexpr float kFactor = 1;
  using Widened = Fp8DotStep;
  using Element = float8;
  using Packed = bfloat16;
  using Word = Lanes<kLanes>::Word;
  struct Weight {
    Word half[2];  // elements 0 to 7, 16 to 23, 32 to 39, 48 to 55; those between
  };

  static EAGLE_INLINE void pack(const bfloat16* row, int64_t inner, bfloat16* out, int64_t stride) {
    for (int64_t k = 0; k < inner; k += kWidth, out += stride) {
      bfloat16 values[kWidth] = {};
      std::memcpy(values, row + k, std::min<int64_t>(kWidth, inner - k) * sizeof *row);
      for (int i = 0; i < 8; ++i) std::memcpy(out + (i / 2 + i % 2 * 4) * 8, values + i * 8, 8 * sizeof *row);
    }
  }

  template <int... i>
  static EAGLE_INLINE Weight interleave(Bytes64 low, Bytes64 high, std::integer_sequence<int, i...>) {
    return {(Word)__builtin_shufflevector(low, high, (i / 16 * 16 + i % 16 / 2 + i % 2 * 64)...),
            (Word)__builtin_shufflevector(low, high, (i / 16 * 16 + i % 16 / 2 + i % 2 * 64 + 8)...)};
  }

  static EAGLE_INLINE Weight load(const float8* p) {
    const auto bits = read<Bytes64>(p);
    const auto low = look_up(kFp8Bytes.low, bits), high = look_up(kFp8Bytes.high, bits) | (bits & 0x80);
    return interleave(low, high, std::make_integer_sequence<int, 64>());
  }

  template <int kRows>
  static EAGLE_INLINE void accumulate(Accumulators<kLanes, kRows>& acc, const bfloat16* x, const float8* const* weight,
                                      int64_t k) {
    Weight w[Product::kTileOutputs];
#pragma GCC unroll 4
    for (int t = 0; t < Product::kTileOutputs; ++t) w[t] = load(weight[t] + k);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const auto pairs = read<Word>(x + r * kWidth + h * 32);
#pragma GCC unroll 4
        for (int t = 0; t < Product::kTileOutputs; ++t) acc[r][t] = add_dots(acc[r][t], pairs, w[t].half[h]);
      }
  }
};

}  // namespace eagle::cpu
