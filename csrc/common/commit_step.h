// commit_step: pack accepted tokens, hidden states and positions into the next round's inputs.
#pragma once
#include <cstdint>

#include "common/parallel.h"

namespace eagle {

struct CommitStepParams {
  const int32_t* draft_tokens;   // [batch, num_nodes]
  const int32_t* accept_index;   // [batch, path_length]
  const int32_t* accept_length;  // [batch]
  const int32_t* bonus_token;    // [batch]
  const char* hidden_states;     // [batch, num_nodes, hidden], strides in bytes, rows contiguous
  const int32_t* context_len;    // [batch]
  int32_t* next_tokens;          // [batch, path_length]
  char* next_hidden;             // [batch, path_length, hidden]
  int32_t* next_positions;       // [batch, path_length]
  int32_t* next_context_len;     // [batch]
  int64_t batch, num_nodes, path_length;
  int64_t row_bytes, batch_stride, row_stride;
};

namespace cpu {
void commit_step(const CommitStepParams& p, ParallelFor parallel_for);
}
namespace cuda {
void commit_step(const CommitStepParams& p, void* stream);
}

}  // namespace eagle
