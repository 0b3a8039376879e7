// lm_head_topk: final norm, output projection and top-k log-probabilities without the logits.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle {

struct LmHeadTopkParams {
  DType dtype;
  Rows hidden_states;       // [rows, size]
  const void* norm_weight;  // [size]
  Weight lm_head_weight;    // [vocabulary, size]
  const int32_t* d2t;       // [vocabulary] or null
  void* normed;             // [rows, size]
  float* logprobs;          // [rows, k]
  int32_t* token_ids;       // [rows, k]
  bool* valid;              // [rows]
  int64_t size, vocabulary, k;
  float eps;
};

namespace cpu {
void lm_head_topk(const LmHeadTopkParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t lm_head_topk_workspace(const LmHeadTopkParams& p);  // bytes
void lm_head_topk(const LmHeadTopkParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
