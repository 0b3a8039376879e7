// expand_tree: one level of growth of a draft tree, for every request.
#pragma once
#include <cstdint>

#include "common/parallel.h"

namespace eagle {

struct ExpandTreeParams {
  const float* frontier_scores;   // [batch, frontier]
  const int32_t* frontier_slots;  // [batch, frontier]
  const int64_t* frontier_mask;   // [batch, frontier, words]
  const float* logprobs;          // [batch, frontier, branching]
  const int32_t* token_ids;       // [batch, frontier, branching]
  float* node_scores;             // [batch, slots]
  int32_t* node_tokens;           // [batch, slots]
  int32_t* node_parents;          // [batch, slots]
  float* next_scores;             // [batch, branching]
  int32_t* next_slots;            // [batch, branching]
  int32_t* next_tokens;           // [batch, branching]
  int32_t* next_origin;           // [batch, branching]
  int64_t* next_mask;             // [batch, branching, words]
  int64_t batch, frontier, branching, words, slots;
  int64_t slot_offset, row_offset;
};

namespace cpu {
void expand_tree(const ExpandTreeParams& p, ParallelFor parallel_for);
}
namespace cuda {
void expand_tree(const ExpandTreeParams& p, void* stream);
}

}  // namespace eagle
