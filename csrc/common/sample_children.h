// sample_children: draw each node's children from the draft's law without replacement.
#pragma once
#include <cstdint>

#include "common/parallel.h"
#include "common/sampling.h"

namespace eagle {

struct SampleChildrenParams {
  int32_t* child_tokens;  // [batch, num_nodes, max_children]
  float* child_logprobs;  // [batch, num_nodes, max_children]
  LogitsView draft_logits;
  const int32_t* node_ids;      // [batch, num_nodes]
  const int32_t* num_children;  // [batch, num_nodes]
  const int32_t* num_fixed;     // [batch, num_nodes]
  const int32_t* context_len;   // [batch]
  const int32_t* d2t;           // [vocabulary] or null
  SamplingParamsView requests;
  int64_t batch, num_nodes, vocabulary, max_children;
};

namespace cpu {
void sample_children(const SampleChildrenParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t sample_children_workspace(const SampleChildrenParams& p);  // bytes
void sample_children(const SampleChildrenParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
