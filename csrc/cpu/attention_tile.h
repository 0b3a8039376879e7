// Register tiles of attention: scores of a few rows against 32 keys, and their weighted sum of values.
//
// Each score is one chain of multiply-adds over the dimensions, each output element one chain over the keys, in
// ascending order and whatever the number of rows in the tile: a row's bits do not depend on its neighbours.
#pragma once
#include <cstdint>

#include "cpu/simd.h"

namespace eagle::cpu {

constexpr int64_t kTileColumns = 2 * kLanes;
constexpr int kTileRows = 8;

typedef float quad __attribute__((vector_size(16)));

EAGLE_INLINE quad load_quad(const float* p) {
  quad v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// rows [32][stride] -> columns [dims][32]; dims is a multiple of four.
EAGLE_INLINE void transpose_keys(const float* rows, int64_t stride, int64_t dims, float* columns) {
  for (int64_t c = 0; c < dims; c += 4)
    for (int64_t j = 0; j < kTileColumns; j += 4) {
      const float* from = rows + j * stride + c;
      const quad r0 = load_quad(from), r1 = load_quad(from + stride);
      const quad r2 = load_quad(from + 2 * stride), r3 = load_quad(from + 3 * stride);
      const quad low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5),
                 high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
      const quad low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5),
                 high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
      const quad out[4] = {
          __builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
          __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(columns + (c + i) * kTileColumns + j, &out[i], sizeof out[i]);
    }
}

// scores[r][0..32) = query[r] . keys, for R rows.
template <int R>
EAGLE_INLINE void score_tile(const float* query, int64_t dims, const float* keys, float* scores, int64_t stride) {
  vfloat acc[R][2] = {};
  for (int64_t c = 0; c < dims; ++c) {
    const vfloat k0 = load(keys + c * kTileColumns), k1 = load(keys + c * kTileColumns + kLanes);
    for (int r = 0; r < R; ++r) {
      const vfloat q = splat(query[r * dims + c]);
      acc[r][0] += q * k0;
      acc[r][1] += q * k1;
    }
  }
  for (int r = 0; r < R; ++r) {
    store(scores + r * stride, acc[r][0]);
    store(scores + r * stride + kLanes, acc[r][1]);
  }
}

// output[r][0..32) = sum over keys j < count of weights[r][j] * values[j][0..32), for R rows.
template <int R>
EAGLE_INLINE void value_tile(const float* weights, int64_t weight_stride, const float* values, int64_t dims,
                             int64_t count, float* output, int64_t output_stride) {
  vfloat acc[R][2] = {};
  for (int64_t j = 0; j < count; ++j) {
    const vfloat v0 = load(values + j * dims), v1 = load(values + j * dims + kLanes);
    for (int r = 0; r < R; ++r) {
      const vfloat w = splat(weights[r * weight_stride + j]);
      acc[r][0] += w * v0;
      acc[r][1] += w * v1;
    }
  }
  for (int r = 0; r < R; ++r) {
    store(output + r * output_stride, acc[r][0]);
    store(output + r * output_stride + kLanes, acc[r][1]);
  }
}

// Whole tiles, then one tile of what is left.
template <int R = kTileRows>
EAGLE_INLINE void score_rows(const float* query, int64_t rows, int64_t dims, const float* keys, float* scores,
                             int64_t stride) {
  for (; rows >= R; rows -= R, query += R * dims, scores += R * stride)
    score_tile<R>(query, dims, keys, scores, stride);
  if constexpr (R > 1)
    if (rows > 0) score_rows<R - 1>(query, rows, dims, keys, scores, stride);
}

template <int R = kTileRows>
EAGLE_INLINE void value_rows(const float* weights, int64_t weight_stride, int64_t rows, const float* values,
                             int64_t dims, int64_t count, float* output, int64_t output_stride) {
  for (; rows >= R; rows -= R, weights += R * weight_stride, output += R * output_stride)
    for (int64_t c = 0; c < dims; c += kTileColumns)
      value_tile<R>(weights, weight_stride, values + c, dims, count, output + c, output_stride);
  if constexpr (R > 1)
    if (rows > 0) value_rows<R - 1>(weights, weight_stride, rows, values, dims, count, output, output_stride);
}

}  // namespace eagle::cpu
