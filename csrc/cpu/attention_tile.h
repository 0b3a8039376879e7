// Register tiles of attention: scores of a few rows against a few keys, and their weighted sum of values.
//
// Each score is one chain of products over the dimensions, each output element one chain over the keys, in
// ascending order and whatever the number of rows in the tile: a row's bits do not depend on its neighbours.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cpu/transpose.h"
#include "cpu/vectors.h"

namespace eagle::cpu {

template <int kLanes>
constexpr int kTileRows = kLanes == 16  ? 8
                          : kLanes == 8 ? 6
                                        : 4;  // 16 accumulators of 32 registers, 12 or 8 of 16
template <int kLanes>
constexpr int64_t kTileColumns = 2 * kLanes;

// How an instruction set multiplies queries by keys of type T, factor by factor: by fused multiply-adds.
template <int kVectorLanes, class T>
struct FusedScores {
  static constexpr int kLanes = kVectorLanes;
  static constexpr int kElements = 1;                         // of a factor
  static constexpr int kFactors = sizeof(float) / sizeof(T);  // of a 32-bit word of a key
  using Element = T;
  using Float = typename Lanes<kLanes>::Float;

  static EAGLE_INLINE void load_query(const T* row, int64_t head_dim, int64_t dims, float* to) {
    for (int64_t c = 0; c < dims; ++c) to[c] = c < head_dim ? to_float(row[c]) : 0;
  }
  static EAGLE_INLINE Float factor(typename Lanes<kLanes>::Word word, int i) {
    if constexpr (std::is_same_v<T, float>) return (Float)word;
    if constexpr (std::is_same_v<T, bfloat16>) return (Float)(i == 0 ? word << 16 : word & 0xffff0000u);
    if constexpr (std::is_same_v<T, float16>)
      return halves_to_floats<kLanes>(__builtin_convertvector(word >> 16 * i & 0xffff, typename Lanes<kLanes>::Short));
  }
  static EAGLE_INLINE Float add_product(Float sum, Float query, Float key) {
    return multiply_add<kLanes>(sum, query, key);
  }
};

// By AVX-512's dot products of pairs of bfloat16: half the instructions, and nothing is converted.
struct DotScores {
  static constexpr int kLanes = 16;
  static constexpr int kElements = 2;
  static constexpr int kFactors = 1;
  using Element = bfloat16;
  using Float = Lanes<kLanes>::Float;

  static EAGLE_INLINE void load_query(const bfloat16* row, int64_t head_dim, int64_t dims, float* to) {
    std::memset(to, 0, dims * sizeof *row);
    std::memcpy(to, row, head_dim * sizeof *row);
  }
  static EAGLE_INLINE Float factor(Lanes<kLanes>::Word word, int) { return (Float)word; }
  static EAGLE_INLINE Float add_product(Float sum, Float query, Float key) { return add_dots(sum, query, key); }
};

// Rows of keys to columns [depth][kTileColumns] of factors.
template <class Step>
EAGLE_INLINE void transpose_keys(const typename Step::Element* const* rows, int64_t depth, float* columns) {
  constexpr int kLanes = Step::kLanes;
  for (int64_t j = 0; j < kTileColumns<kLanes>; j += kLanes)
    for (int64_t k = 0; k < depth; k += kLanes * Step::kFactors) {
      typename Lanes<kLanes>::Word block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) std::memcpy(&block[i], rows[j + i] + k * Step::kElements, sizeof block[i]);
      transpose<kLanes>(block);
#pragma GCC unroll 32
      for (int i = 0; i < kLanes * Step::kFactors; ++i) {
        write(columns + (k + i) * kTileColumns<kLanes> + j,
              Step::factor(block[i / Step::kFactors], i % Step::kFactors));
      }
    }
}

// scores[r][0..kTileColumns) = scale * query[r] . keys, for R rows.
template <class Step, int R>
EAGLE_INLINE void score_tile(const float* query, int64_t depth, const float* keys, float scale, float* scores,
                             int64_t stride) {
  constexpr int kLanes = Step::kLanes;
  using Float = typename Step::Float;
  Float acc[R][2] = {};
  for (int64_t k = 0; k < depth; ++k, keys += kTileColumns<kLanes>) {
    const Float k0 = read<Float>(keys), k1 = read<Float>(keys + kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Float q = broadcast<Float>(query[r * depth + k], kEachLane<kLanes>);
      acc[r][0] = Step::add_product(acc[r][0], q, k0);
      acc[r][1] = Step::add_product(acc[r][1], q, k1);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    write(scores + r * stride, acc[r][0] * scale);
    write(scores + r * stride + kLanes, acc[r][1] * scale);
  }
}

// output[r][0..kTileColumns) = sum over keys j < count of weights[r][j] * values[j][column...), for R rows.
template <int kLanes, class T, int R>
EAGLE_INLINE void value_tile(const float* weights, int64_t weight_stride, const T* const* values, int64_t column,
                             int64_t count, float* output, int64_t output_stride) {
  Pair<kLanes> acc[R] = {};
  for (int64_t j = 0; j < count; ++j) {
    const auto value = load_pair<kLanes>(values[j] + column);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto w = broadcast<typename Lanes<kLanes>::Float>(weights[r * weight_stride + j], kEachLane<kLanes>);
      acc[r].first = multiply_add<kLanes>(acc[r].first, w, value.first);
      acc[r].second = multiply_add<kLanes>(acc[r].second, w, value.second);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const auto ordered = in_order<T>(acc[r], kEachLane<kLanes>);
    write(output + r * output_stride, ordered.first);
    write(output + r * output_stride + kLanes, ordered.second);
  }
}

// Whole tiles, then one tile of what is left.
template <class Step, int R = kTileRows<Step::kLanes>>
EAGLE_INLINE void score_rows(const float* query, int64_t rows, int64_t depth, const float* keys, float scale,
                             float* scores, int64_t stride) {
  for (; rows >= R; rows -= R, query += R * depth, scores += R * stride)
    score_tile<Step, R>(query, depth, keys, scale, scores, stride);
  if constexpr (R > 1)
    if (rows > 0) score_rows<Step, R - 1>(query, rows, depth, keys, scale, scores, stride);
}

template <int kLanes, class T, int R = kTileRows<kLanes>>
EAGLE_INLINE void value_rows(const float* weights, int64_t weight_stride, int64_t rows, const T* const* values,
                             int64_t dims, int64_t count, float* output, int64_t output_stride) {
  for (; rows >= R; rows -= R, weights += R * weight_stride, output += R * output_stride)
    for (int64_t c = 0; c < dims; c += kTileColumns<kLanes>)
      value_tile<kLanes, T, R>(weights, weight_stride, values, c, count, output + c, output_stride);
  if constexpr (R > 1)
    if (rows > 0)
      value_rows<kLanes, T, R - 1>(weights, weight_stride, rows, values, dims, count, output, output_stride);
}

}  // namespace eagle::cpu
