// topk_logprobs: log-softmax and top-k of rows of logits in one pass.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"

namespace eagle {

struct TopkLogprobsParams {
  float* logprobs;     // [rows, k]
  int32_t* token_ids;  // [rows, k]
  bool* valid;         // [rows]
  const void* logits;  // [rows, vocabulary], rows strided, in elements
  DType dtype;
  int64_t row_stride;
  const int32_t* d2t;  // [vocabulary] or null
  int64_t rows, vocabulary, k;
};

namespace cpu {
void topk_logprobs(const TopkLogprobsParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t topk_logprobs_workspace(const TopkLogprobsParams& p);  // bytes
void topk_logprobs(const TopkLogprobsParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
