// draft_output: attention output projection, residual and norm of a draft layer.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle {

struct DraftOutputParams {
  DType dtype;
  Rows attention;           // [rows, inner]
  Weight o_weight;          // [size, inner]
  Rows residual;            // [rows, size]
  const void* norm_weight;  // [size]
  void* hidden;             // [rows, size]
  void* normed;             // [rows, size]
  int64_t inner, size;
  float eps;
};

namespace cpu {
void draft_output(const DraftOutputParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t draft_output_workspace(const DraftOutputParams& p);  // bytes
void draft_output(const DraftOutputParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
