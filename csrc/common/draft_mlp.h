// draft_mlp: the gated MLP of a draft layer with its residual.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle {

struct DraftMlpParams {
  DType dtype;
  Rows normed;            // [rows, size]
  Weight gate_up_weight;  // [2 * intermediate, size], gate rows first
  Weight down_weight;     // [size, intermediate]
  Rows residual;          // [rows, size]
  void* hidden;           // [rows, size]
  int64_t size, intermediate;
};

namespace cpu {
void draft_mlp(const DraftMlpParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t draft_mlp_workspace(const DraftMlpParams& p);  // bytes
void draft_mlp(const DraftMlpParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
