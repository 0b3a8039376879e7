// Few input rows times a weight matrix on the GPU: the host interface of the product under linear and the draft head.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/rows.h"

namespace eagle::cuda {

struct GemmParams {
  DType dtype;         // of input and weight
  Rows input;          // [rows, inner]
  const void* weight;  // [outputs, inner]
  int64_t inner, outputs;
};

// Into how many ranges of `inner` the product is split, so that every multiprocessor streams a part of the weight.
int64_t gemm_splits(const GemmParams& p);

// Float32 sums of each range: partials [gemm_splits, rows, outputs]. Whoever reads them adds the splits in order, so
// that results do not depend on timing.
void gemm_partials(const GemmParams& p, float* partials, void* stream);

inline int64_t gemm_partials_bytes(const GemmParams& p) {
  return gemm_splits(p) * p.input.count * p.outputs * static_cast<int64_t>(sizeof(float));
}

}  // namespace eagle::cuda
