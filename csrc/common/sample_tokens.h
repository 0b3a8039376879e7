// sample_tokens: one token per tree node from the target's logits.
#pragma once
#include <cstdint>

#include "common/parallel.h"
#include "common/sampling.h"

namespace eagle {

struct SampleTokensParams {
  int32_t* token_ids;  // [batch, num_nodes]
  LogitsView logits;
  const int32_t* position_ids;  // [batch, num_nodes]
  SamplingParamsView requests;
  int64_t batch, num_nodes, vocabulary;
};

namespace cpu {
void sample_tokens(const SampleTokensParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t sample_tokens_workspace(const SampleTokensParams& p);  // bytes
void sample_tokens(const SampleTokensParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
