// verify_tree: follow the target's tokens down the draft tree.
#pragma once
#include <cstdint>

#include "common/parallel.h"

namespace eagle {

struct VerifyTreeParams {
  int32_t* accept_index;         // [batch, max_depth + 1]
  int32_t* accept_length;        // [batch]
  int32_t* bonus_token;          // [batch]
  const int32_t* draft_tokens;   // [batch, num_nodes]
  const int32_t* parent;         // [batch, num_nodes]
  const int32_t* target_tokens;  // [batch, num_nodes]
  int64_t batch, num_nodes, max_depth;
};

namespace cpu {
void verify_tree(const VerifyTreeParams& p, ParallelFor parallel_for);
}
namespace cuda {
void verify_tree(const VerifyTreeParams& p, void* stream);
}

}  // namespace eagle
