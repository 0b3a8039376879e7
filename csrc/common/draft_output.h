// draft_output: attention output projection, residual and norm of a draft layer.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace eagle {

struct DraftOutputParams {
  DType dtype;
  Rows attention;           // [rows, inner]
  const void* o_weight;     // [size, inner]
  Rows residual;            // [rows, size]
  const void* norm_weight;  // [size]
  void* hidden;             // [rows, size]
  void* normed;             // [rows, size]
  int64_t inner, size;
  float eps;
  void* workspace;  // CUDA: workspace_bytes of device memory
};

namespace cpu {
void draft_output(const DraftOutputParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t workspace_bytes(const DraftOutputParams& p);
void draft_output(const DraftOutputParams& p, void* stream);
}  // namespace cuda

}  // namespace eagle
