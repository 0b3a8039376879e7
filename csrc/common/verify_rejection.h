// verify_rejection: exact verification of draft trees whose children were sampled.
#pragma once
#include <cstdint>

#include "common/parallel.h"
#include "common/sampling.h"

namespace eagle {

struct VerifyRejectionParams {
  int32_t* accept_index;   // [batch, max_depth + 1]
  int32_t* accept_length;  // [batch]
  int32_t* bonus_token;    // [batch]
  LogitsView target_logits;
  LogitsView draft_logits;
  const int32_t* draft_tokens;  // [batch, num_nodes]
  const int32_t* parent;        // [batch, num_nodes]
  const int32_t* num_fixed;     // [batch, num_nodes]
  const int32_t* context_len;   // [batch]
  const int32_t* d2t;           // [draft_vocabulary] or null
  SamplingParamsView requests;
  int64_t batch, num_nodes, vocabulary, draft_vocabulary, max_depth;
  bool traversal;
};

namespace cpu {
void verify_rejection(const VerifyRejectionParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t verify_rejection_workspace(const VerifyRejectionParams& p);  // bytes
void verify_rejection(const VerifyRejectionParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
