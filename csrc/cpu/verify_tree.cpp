// verify_tree on the CPU: a walk per request; parents precede children, so it ends even on malformed trees.
#include "common/verify_tree.h"

#include <algorithm>

namespace eagle::cpu {

void verify_tree(const VerifyTreeParams& p, ParallelFor parallel_for) {
  constexpr int64_t kRequestsPerTask = 32;
  parallel_for(p.batch, kRequestsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int32_t* tokens = p.draft_tokens + b * p.num_nodes;
      const int32_t* parent = p.parent + b * p.num_nodes;
      const int32_t* target = p.target_tokens + b * p.num_nodes;
      int32_t* path = p.accept_index + b * (p.max_depth + 1);
      std::fill_n(path, p.max_depth + 1, -1);
      path[0] = 0;
      int32_t here = 0, length = 0;
      for (int32_t node = 1; node < p.num_nodes && length < p.max_depth && target[here] >= 0; ++node) {
        if (parent[node] != here || tokens[node] != target[here]) continue;
        here = path[++length] = node;
      }
      p.accept_length[b] = length;
      p.bonus_token[b] = target[here];
    }
  });
}

}  // namespace eagle::cpu
