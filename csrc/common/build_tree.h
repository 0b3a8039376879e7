// build_tree: the best nodes of a grown draft tree, numbered parents first.
#pragma once
#include <cstdint>

#include "common/parallel.h"

namespace eagle {

struct BuildTreeParams {
  const float* node_scores;     // [batch, slots]
  const int32_t* node_tokens;   // [batch, slots]
  const int32_t* node_parents;  // [batch, slots]
  const int32_t* context_len;   // [batch]
  int32_t* draft_tokens;        // [batch, num_nodes]
  int32_t* parent;              // [batch, num_nodes]
  int32_t* depth;               // [batch, num_nodes]
  int32_t* position_ids;        // [batch, num_nodes]
  int64_t* ancestor_mask;       // [batch, num_nodes, words]
  int32_t* node_slots;          // [batch, num_nodes]
  int64_t batch, slots, num_nodes, words;
};

namespace cpu {
void build_tree(const BuildTreeParams& p, ParallelFor parallel_for);
}
namespace cuda {
void build_tree(const BuildTreeParams& p, void* stream);
}

}  // namespace eagle
