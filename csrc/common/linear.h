// linear: a few input rows times a weight matrix, plus bias.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle {

struct LinearParams {
  DType dtype;       // of input, bias and output
  Rows input;        // [rows, inner]
  Weight weight;     // [outputs, inner]
  const void* bias;  // [outputs] or null
  void* output;      // [rows, outputs]
  int64_t inner, outputs;
};

namespace cpu {
void linear(const LinearParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t linear_workspace(const LinearParams& p);  // bytes
void linear(const LinearParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
