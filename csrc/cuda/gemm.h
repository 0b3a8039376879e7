// Few input rows times a weight matrix on the GPU: the host interface of the product under linear and the draft head.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle::cuda {

struct GemmParams {
  DType dtype;    // of input
  Rows input;     // [rows, inner]
  Weight weight;  // [outputs, inner]
  int64_t inner, outputs;
  bool gated = false;  // silu(product with a row of the weight's first half) * that with the same row of the second
};

// Into how many ranges of `inner` the product is split, so that every multiprocessor streams a part of the weight.
int64_t gemm_splits(const GemmParams& p);

// Whether a product can go straight to its output: it has one range, or the GPU has clusters, in which the blocks of
// all ranges add up their sums.
bool gemm_is_direct(const GemmParams& p);

// Where the product goes: float32 sums of each range, [gemm_splits, rows, outputs], which whoever reads them adds in
// order (partials.cuh); or, where it is direct, to [rows, outputs] of the dtype.
struct GemmOutput {
  float* partials;   // or null
  void* output;      // used without partials
  const void* bias;  // [outputs] or null, likewise
  Rows residual;     // [rows, outputs] of the dtype, to be added, or empty, likewise
};

void gemm(const GemmParams& p, const GemmOutput& to, void* stream);

inline int64_t gemm_partials_bytes(const GemmParams& p) {
  return gemm_splits(p) * p.input.count * p.outputs * static_cast<int64_t>(sizeof(float));
}

}  // namespace eagle::cuda
