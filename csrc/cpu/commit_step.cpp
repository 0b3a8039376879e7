// commit_step on the CPU: a gather of rows, and the tokens that follow them.
#include "common/commit_step.h"

#include <algorithm>
#include <cstring>

namespace eagle::cpu {

void commit_step(const CommitStepParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int32_t* path = p.accept_index + b * p.path_length;
      const int64_t accepted = p.accept_length[b];
      p.next_context_len[b] = static_cast<int32_t>(p.context_len[b] + accepted + 1);
      for (int64_t i = 0; i < p.path_length; ++i) {
        const int64_t at = b * p.path_length + i;
        char* hidden = p.next_hidden + at * p.row_bytes;
        p.next_positions[at] = static_cast<int32_t>(p.context_len[b] + std::min(i, accepted));
        if (i > accepted) {
          p.next_tokens[at] = 0;
          std::memset(hidden, 0, p.row_bytes);
          continue;
        }
        p.next_tokens[at] = i == accepted ? p.bonus_token[b] : p.draft_tokens[b * p.num_nodes + path[i + 1]];
        std::memcpy(hidden, p.hidden_states + b * p.batch_stride + path[i] * p.row_stride, p.row_bytes);
      }
    }
  });
}

}  // namespace eagle::cpu
