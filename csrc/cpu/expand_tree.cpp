// expand_tree on the CPU: write a level into the history, select its best children.
#include "common/expand_tree.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/tree.h"

namespace eagle::cpu {
namespace {

// Children (f, k) of request b go to slots slot_offset + f * branching + k; returns the first one's.
int64_t write_level(const ExpandTreeParams& p, int64_t b) {
  const int64_t children = p.frontier * p.branching;
  const int64_t level = b * p.slots + p.slot_offset;
  for (int64_t child = 0; child < children; ++child) {
    const int64_t node = b * p.frontier + child / p.branching;
    p.node_scores[level + child] = p.frontier_scores[node] + p.logprobs[b * children + child];
    p.node_tokens[level + child] = p.token_ids[b * children + child];
    p.node_parents[level + child] = p.frontier_slots[node];
  }
  return level;
}

void write_next(const ExpandTreeParams& p, int64_t b, int64_t level, int64_t i, int32_t child) {
  const int64_t next = b * p.branching + i;
  const int64_t origin = child / p.branching;
  p.next_scores[next] = rank_score(p.node_scores[level + child]);
  p.next_slots[next] = static_cast<int32_t>(p.slot_offset + child);
  p.next_tokens[next] = p.node_tokens[level + child];
  p.next_origin[next] = static_cast<int32_t>(origin);
  int64_t* mask = p.next_mask + next * p.words;
  std::copy_n(p.frontier_mask + (b * p.frontier + origin) * p.words, p.words, mask);
  set_bit(mask, p.row_offset + i);
}

}  // namespace

void expand_tree(const ExpandTreeParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch, 8, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> order(p.frontier * p.branching);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t level = write_level(p, b);
      const float* scores = p.node_scores + level;
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + p.branching, order.end(), [&](int32_t a, int32_t c) {
        return outranks(rank_score(scores[a]), a, rank_score(scores[c]), c);
      });
      for (int64_t i = 0; i < p.branching; ++i) write_next(p, b, level, i, order[i]);
    }
  });
}

}  // namespace eagle::cpu
