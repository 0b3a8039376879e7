// verify_tree: a warp per request follows the target down the tree with ballots, in registers.
#include "common/verify_tree.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {
namespace {

// A node a lane.
struct Nodes {
  int32_t draft_token, parent, target_token;
};

__device__ Nodes load_nodes(const VerifyTreeParams& p, int64_t b, int64_t node) {
  if (node >= p.num_nodes) return {0, -1, 0};
  const int64_t at = b * p.num_nodes + node;
  return {p.draft_tokens[at], p.parent[at], p.target_tokens[at]};
}

// grid: batch; one warp. Parents precede children, so that one sweep over the nodes is the whole walk, and it ends on
// malformed trees too.
__global__ void __launch_bounds__(kWarp) verify_tree_kernel(const VerifyTreeParams p) {
  wait_for_earlier_kernels();
  const int64_t b = blockIdx.x;
  int32_t* path = p.accept_index + b * (p.max_depth + 1);
  Nodes next = load_nodes(p, b, lane_id());
  int32_t here = 0, length = 0;
  int32_t wanted = __shfl_sync(kAllLanes, next.target_token, 0);
  if (lane_id() == 0) path[0] = 0;

  for (int64_t first = 0; first < p.num_nodes; first += kWarp) {
    const Nodes nodes = next;
    next = load_nodes(p, b, first + kWarp + lane_id());  // in flight during the walk below
    const int64_t node = first + lane_id();
    while (length < p.max_depth && wanted >= 0) {
      const bool matches = node > here && nodes.parent == here && nodes.draft_token == wanted;
      const unsigned votes = __ballot_sync(kAllLanes, matches);
      if (votes == 0) break;
      const int child = __ffs(static_cast<int>(votes)) - 1;
      here = static_cast<int32_t>(first) + child;
      wanted = __shfl_sync(kAllLanes, nodes.target_token, child);
      ++length;
      if (lane_id() == 0) path[length] = here;
    }
  }

  for (int64_t i = length + 1 + lane_id(); i <= p.max_depth; i += kWarp) path[i] = -1;
  if (lane_id() > 0) return;
  p.accept_length[b] = length;
  p.bonus_token[b] = wanted;
}

}  // namespace

void verify_tree(const VerifyTreeParams& p, void* stream) {
  if (p.batch == 0) return;
  launch(&verify_tree_kernel, dim3(p.batch), dim3(kWarp), stream, p);
  check_launch("verify_tree");
}

}  // namespace eagle::cuda
