// build_tree: a block per request selects the best nodes by a histogram search, and links them in shared memory.
#include "common/build_tree.h"
#include "common/tree.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/ordinal.cuh"
#include "cuda/select.cuh"

namespace eagle::cuda {
namespace {

// One request's history.
struct History {
  const float* scores;
  const int32_t* parents;
  int64_t slots;

  // Whether a tree without a size limit keeps the candidate: its score counts, and every ancestor up to the root is an
  // earlier slot that is visited earlier. Parents descend, so the loop ends.
  __device__ bool eligible(int64_t slot) const {
    while (slot > 0) {
      const float score = scores[slot];
      const int64_t parent = parents[slot];
      if (!(score > -INFINITY) || parent < 0 || parent >= slot) return false;
      if (parent > 0 && !(scores[parent] >= score)) return false;
      slot = parent;
    }
    return true;
  }
};

// Ordinals of the eligible candidates: by score, then by lowest slot.
struct HistorySource {
  History history;
  RowOrdinals<float, Ties::kLowestToken> ordinals;

  template <class Emit>
  __device__ void operator()(Range, const Emit& emit) const {
    for (int64_t first = 0; first < history.slots; first += blockDim.x) {
      const int64_t slot = first + threadIdx.x;
      const bool wanted = slot > 0 && slot < history.slots && history.eligible(slot);
      emit(wanted, wanted ? ordinals.of(history.scores[slot], slot) : 0);
    }
  }
};

// The tree in shared memory; nodes by ascending slot, the root first.
struct Tree {
  int32_t chosen[kMaxNodes];  // slots in any order
  int32_t slot[kMaxNodes];    // padding: -1
  int32_t parent[kMaxNodes];  // nodes; root and padding: -1
  int32_t size;               // without padding

  // The node of a kept slot, by binary search.
  __device__ int32_t node_of(int32_t wanted) const {
    int32_t low = 0, high = size - 1;
    while (low < high) {
      const int32_t middle = (low + high + 1) / 2;
      if (slot[middle] <= wanted)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
};

// Fills tree.chosen: the root and the num_nodes - 1 best of the eligible, which are what the visit in order keeps.
__device__ void choose_slots(const BuildTreeParams& p, const History& history, Selection& selection, Tree& tree) {
  if (threadIdx.x == 0) {
    tree.chosen[0] = 0;
    tree.size = 1;
  }
  selection.reset();  // its barriers make the root visible too
  if (p.num_nodes == 1) return;
  const HistorySource source{history, RowOrdinals<float, Ties::kLowestToken>(history.slots)};
  const Range all{source.ordinals.lowest(0), source.ordinals.highest(source.ordinals.key(INFINITY))};
  const uint64_t last = selection.reach(all, 0, p.num_nodes - 1, source, UnitWeight{});
  selection.for_each({last, all.high}, source,
                     [&](uint64_t c) { tree.chosen[atomicAdd(&tree.size, 1)] = source.ordinals.token(c); });
  __syncthreads();  // all slots are there
}

__device__ void write_node(const BuildTreeParams& p, int64_t b, int32_t node, const Tree& tree) {
  const int64_t at = b * p.num_nodes + node;
  const int32_t slot = tree.slot[node];
  int32_t depth = 0;
  for (int32_t ancestor = tree.parent[node]; ancestor >= 0; ancestor = tree.parent[ancestor]) ++depth;
  p.draft_tokens[at] = p.node_tokens[b * p.slots + max(slot, 0)];
  p.parent[at] = tree.parent[node];
  p.depth[at] = depth;
  p.position_ids[at] = p.context_len[b] + depth;
  p.node_slots[at] = slot;
  for (int32_t word = 0; word < p.words; ++word) {
    uint64_t mask = 0;
    for (int32_t ancestor = node; ancestor >= 0; ancestor = tree.parent[ancestor])
      if (ancestor / kMaskWordBits == word) mask |= uint64_t{1} << (ancestor % kMaskWordBits);
    p.ancestor_mask[at * p.words + word] = static_cast<int64_t>(mask);
  }
}

// grid: batch.
__global__ void __launch_bounds__(kSelectThreads) build_tree_kernel(const BuildTreeParams p) {
  wait_for_earlier_kernels();
  __shared__ Selection selection;
  __shared__ Tree tree;
  const int64_t b = blockIdx.x;
  const int32_t node = threadIdx.x;
  const History history{p.node_scores + b * p.slots, p.node_parents + b * p.slots, p.slots};
  choose_slots(p, history, selection, tree);

  // Number the chosen slots in ascending order; padding follows.
  if (node < tree.size) {
    int32_t rank = 0;
    for (int32_t i = 0; i < tree.size; ++i) rank += tree.chosen[i] < tree.chosen[node];
    tree.slot[rank] = tree.chosen[node];
  } else if (node < p.num_nodes) {
    tree.slot[node] = -1;
  }
  __syncthreads();  // slots in order, for the search of parents

  if (node < p.num_nodes) {
    const int32_t slot = tree.slot[node];
    tree.parent[node] = slot > 0 ? tree.node_of(history.parents[slot]) : -1;
  }
  __syncthreads();  // links, for the walk to the root

  if (node < p.num_nodes) write_node(p, b, node, tree);
}

}  // namespace

void build_tree(const BuildTreeParams& p, void* stream) {
  if (p.batch == 0) return;
  launch(&build_tree_kernel, dim3(p.batch), dim3(kSelectThreads), stream, p);
  check_launch("build_tree");
}

}  // namespace eagle::cuda
