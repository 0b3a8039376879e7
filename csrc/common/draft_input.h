// draft_input: normalised token embedding and hidden state, side by side.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace eagle {

struct DraftInputParams {
  DType dtype;
  const int32_t* token_ids;        // [rows]
  Rows hidden_states;              // [rows, size]
  const void* embed_weight;        // [vocabulary, size]
  const void* embed_norm_weight;   // [size]
  const void* hidden_norm_weight;  // [size]
  void* output;                    // [rows, 2 * size]
  int64_t size, vocabulary;
  float eps;
};

namespace cpu {
void draft_input(const DraftInputParams& p, ParallelFor parallel_for);
}
namespace cuda {
void draft_input(const DraftInputParams& p, void* stream);
}

}  // namespace eagle
