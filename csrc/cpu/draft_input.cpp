// draft_input on the CPU: rms_norm of both halves, written where they belong.
#include "common/draft_input.h"

#include <algorithm>
#include <vector>

#include "common/rms_norm.h"

namespace eagle::cpu {

void draft_input(const DraftInputParams& p, ParallelFor parallel_for) {
  const int64_t row_bytes = p.size * size_of(p.dtype), rows = p.hidden_states.count;
  std::vector<char> embeddings(rows * row_bytes);
  const Rows gathered = contiguous_rows(embeddings.data(), rows, row_bytes);
  for (int64_t r = 0; r < rows; ++r)
    std::copy_n(static_cast<const char*>(p.embed_weight) + p.token_ids[r] * row_bytes, row_bytes, gathered[r]);

  RmsNormParams norm{
      .dtype = p.dtype,
      .input = gathered,
      .weight = p.embed_norm_weight,
      .output = {static_cast<char*>(p.output), rows, 1, {rows}, {2 * row_bytes}},
      .size = p.size,
      .eps = p.eps,
  };
  rms_norm(norm, parallel_for);
  norm.input = p.hidden_states;
  norm.weight = p.hidden_norm_weight;
  norm.output.data += row_bytes;
  rms_norm(norm, parallel_for);
}

}  // namespace eagle::cpu
