// build_tree on the CPU: candidates leave a heap best first until the tree is full.
#include "common/build_tree.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/tree.h"

namespace eagle::cpu {
namespace {

struct Scratch {
  std::vector<int32_t> heap;     // candidate slots
  std::vector<int32_t> kept;     // slots, the root first
  std::vector<int32_t> node_of;  // [slots] -1: not kept
};

// Fills s.kept with the slots of the tree, ascending, and numbers them in s.node_of.
void select_nodes(const BuildTreeParams& p, int64_t b, Scratch& s) {
  const float* scores = p.node_scores + b * p.slots;
  const int32_t* parents = p.node_parents + b * p.slots;
  s.heap.clear();
  for (int32_t slot = 1; slot < p.slots; ++slot)
    if (scores[slot] > -INFINITY) s.heap.push_back(slot);  // false for NaN
  const auto worse = [scores](int32_t a, int32_t c) { return outranks(scores[c], c, scores[a], a); };
  std::make_heap(s.heap.begin(), s.heap.end(), worse);

  s.node_of.assign(p.slots, -1);
  s.node_of[0] = 0;
  s.kept.assign(1, 0);
  while (!s.heap.empty() && static_cast<int64_t>(s.kept.size()) < p.num_nodes) {
    std::pop_heap(s.heap.begin(), s.heap.end(), worse);
    const int32_t slot = s.heap.back();
    s.heap.pop_back();
    const int32_t parent = parents[slot];
    if (parent < 0 || parent >= slot || s.node_of[parent] < 0) continue;
    s.node_of[slot] = 0;
    s.kept.push_back(slot);
  }
  std::sort(s.kept.begin(), s.kept.end());
  for (size_t node = 0; node < s.kept.size(); ++node) s.node_of[s.kept[node]] = static_cast<int32_t>(node);
}

// Node `node` of request b; slot -1 is padding.
void write_node(const BuildTreeParams& p, int64_t b, int64_t node, int32_t slot, int32_t parent) {
  const int64_t first = b * p.num_nodes, at = first + node;
  const int32_t depth = parent < 0 ? 0 : p.depth[first + parent] + 1;
  p.draft_tokens[at] = p.node_tokens[b * p.slots + std::max(slot, 0)];
  p.parent[at] = parent;
  p.depth[at] = depth;
  p.position_ids[at] = p.context_len[b] + depth;
  p.node_slots[at] = slot;
  int64_t* mask = p.ancestor_mask + at * p.words;
  if (parent < 0)
    std::fill_n(mask, p.words, 0);
  else
    std::copy_n(p.ancestor_mask + (first + parent) * p.words, p.words, mask);
  set_bit(mask, node);
}

}  // namespace

void build_tree(const BuildTreeParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch, 2, [&](int64_t begin, int64_t end) {
    Scratch s;
    for (int64_t b = begin; b < end; ++b) {
      select_nodes(p, b, s);
      const auto kept = static_cast<int64_t>(s.kept.size());
      write_node(p, b, 0, 0, -1);
      for (int64_t node = 1; node < kept; ++node) {
        const int32_t slot = s.kept[node];
        write_node(p, b, node, slot, s.node_of[p.node_parents[b * p.slots + slot]]);
      }
      for (int64_t node = kept; node < p.num_nodes; ++node) write_node(p, b, node, -1, -1);
    }
  });
}

}  // namespace eagle::cpu
