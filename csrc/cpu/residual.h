// A projection onto the residual stream: input @ weight^T + residual, summed in float32 and rounded once.
#pragma once
#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle::cpu {

struct ResidualProjection {
  DType dtype;
  Rows input;     // [rows, inner]
  Weight weight;  // [size, inner]
  Rows residual;  // [rows, size]
  void* output;   // [rows, size]
  int64_t inner, size;
};

void project_to_residual(const ResidualProjection& p, const ParallelFor& parallel_for);

}  // namespace eagle::cpu
