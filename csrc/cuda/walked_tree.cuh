// A draft tree while one block walks it: what happened to its nodes, and a node's children, found 32 nodes at a time.
#pragma once
#include "common/tree.h"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

enum class State : int32_t { kOpen, kExcluded, kSubtracted };

struct Node {
  double reach;           // traversal: probability of acceptance, given how the path fared
  int32_t parent, depth;  // parent -1: the root, or nobody's child
  State state;
  float owed, taken;
  int32_t token;
  int32_t num_fixed;  // children that have their places whatever they are
};

constexpr int32_t kNone = INT32_MAX;

__device__ inline unsigned lanes_before() { return (1u << lane_id()) - 1; }

struct WalkedTree {
  Node* nodes;
  int32_t num_nodes;

  // By all threads of the block, from arrays [num_nodes]; num_fixed null: all children are fixed. Parents precede their
  // children and are not too deep; all other nodes belong to nobody.
  __device__ void link(const int32_t* parent, const int32_t* tokens, const int32_t* num_fixed,
                       int64_t max_depth) const {
    for_each_node([&](int32_t node, Node& at) {
      const int32_t above = parent[node], token = tokens[node], fixed = num_fixed ? num_fixed[node] : kNone;
      at = {.reach = 1, .parent = above < node ? above : -1, .token = token, .num_fixed = fixed};
    });
    for_each_node([&](int32_t node, Node& at) {
      int32_t depth = 0, above = node;
      for (; above > 0 && depth <= max_depth; ++depth) above = nodes[above].parent;
      at.depth = above == 0 && depth <= max_depth ? depth : 0;
    });
    for_each_node([&](int32_t, Node& at) {
      if (at.depth == 0) at.parent = -1;
    });
  }

  // The first child of `here` behind `after` for which wanted(rank, child) holds, or kNone. Whole warps.
  template <class Wanted>
  __device__ int32_t next_child(int32_t here, int32_t after, const Wanted& wanted) const {
    int32_t found = kNone;
    for_children(here, [&](int32_t node, int32_t rank) {
      const unsigned hits = __ballot_sync(kAllLanes, rank >= 0 && node > after && wanted(rank, node));
      if (hits != 0) found = node - lane_id() + __ffs(hits) - 1;
      return hits == 0;
    });
    return found;
  }

  __device__ int32_t next_sampled(int32_t here, int32_t after) const {
    return next_child(here, after, [&](int32_t rank, int32_t) { return rank >= nodes[here].num_fixed; });
  }

  // Calls visit(node, rank) in whole warps, for 32 nodes at once as long as it says true: a child's rank among the
  // children of `here`, -1 for other nodes.
  template <class Visit>
  __device__ void for_children(int32_t here, const Visit& visit) const {
    int32_t rank = 0;
    for (int32_t first = here + 1; first < num_nodes; first += kWarp) {
      const int32_t node = first + lane_id();
      const bool is_child = node < num_nodes && nodes[node].parent == here;
      const unsigned children = __ballot_sync(kAllLanes, is_child);
      if (!visit(node, is_child ? rank + __popc(children & lanes_before()) : -1)) return;
      rank += __popc(children);
    }
  }

 private:
  template <class Visit>
  __device__ void for_each_node(const Visit& visit) const {
    for (int32_t node = static_cast<int32_t>(threadIdx.x); node < num_nodes; node += static_cast<int32_t>(blockDim.x))
      visit(node, nodes[node]);
    __syncthreads();
  }
};

}  // namespace eagle::cuda
