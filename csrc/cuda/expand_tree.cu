// expand_tree: a block per request writes a level into the history and ranks its children by counting.
#include "common/expand_tree.h"
#include "common/tree.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 128;

// Child (f, k) of request b goes to slot slot_offset + f * branching + k. Reads come before the first write, or each
// would wait for the one before.
__device__ void write_child(const ExpandTreeParams& p, int64_t b, int64_t child) {
  const int64_t from = b * p.frontier + child / p.branching;
  const int64_t in = b * p.frontier * p.branching + child;
  const float score = p.frontier_scores[from] + p.logprobs[in];
  const int32_t token = p.token_ids[in], parent = p.frontier_slots[from];
  const int64_t out = b * p.slots + p.slot_offset + child;
  p.node_scores[out] = score;
  p.node_tokens[out] = token;
  p.node_parents[out] = parent;
}

// The child of rank i becomes node i of the next frontier.
__device__ void write_next(const ExpandTreeParams& p, int64_t b, int64_t i, int64_t child, float score) {
  const int64_t next = b * p.branching + i;
  const int64_t origin = child / p.branching;
  const int64_t* inherited = p.frontier_mask + (b * p.frontier + origin) * p.words;
  const int32_t token = p.token_ids[b * p.frontier * p.branching + child];
  const int64_t row = p.row_offset + i;
  for (int64_t word = 0; word < p.words; ++word) {
    const uint64_t own = word == row / kMaskWordBits ? uint64_t{1} << row % kMaskWordBits : 0;
    p.next_mask[next * p.words + word] = inherited[word] | static_cast<int64_t>(own);
  }
  p.next_scores[next] = score;
  p.next_slots[next] = static_cast<int32_t>(p.slot_offset + child);
  p.next_tokens[next] = token;
  p.next_origin[next] = static_cast<int32_t>(origin);
}

// grid: batch.
__global__ void __launch_bounds__(kThreads) expand_tree_kernel(const ExpandTreeParams p) {
  wait_for_earlier_kernels();
  __shared__ float tile[kThreads];
  const int64_t b = blockIdx.x, children = p.frontier * p.branching;
  for (int64_t child = threadIdx.x; child < children; child += kThreads) write_child(p, b, child);
  __syncthreads();  // the whole level is in the history

  // Rank: how many children of the level outrank this thread's, tile by tile.
  const float* scores = p.node_scores + b * p.slots + p.slot_offset;
  for (int64_t first = 0; first < children; first += kThreads) {
    const int64_t child = first + threadIdx.x;
    const float score = child < children ? rank_score(scores[child]) : 0;
    int64_t rank = 0;
    for (int64_t tile_first = 0; tile_first < children; tile_first += kThreads) {
      const int64_t other = tile_first + threadIdx.x;
      __syncthreads();  // the previous tile has been read
      tile[threadIdx.x] = other < children ? rank_score(scores[other]) : 0;
      __syncthreads();
      const int count = static_cast<int>(min(static_cast<int64_t>(kThreads), children - tile_first));
      for (int i = 0; i < count; ++i) rank += outranks(tile[i], tile_first + i, score, child);
    }
    if (child < children && rank < p.branching) write_next(p, b, rank, child, score);
  }
}

}  // namespace

void expand_tree(const ExpandTreeParams& p, void* stream) {
  if (p.batch * p.branching == 0) return;
  launch(&expand_tree_kernel, dim3(p.batch), dim3(kThreads), stream, p);
  check_launch("expand_tree");
}

}  // namespace eagle::cuda
