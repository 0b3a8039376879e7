// build_tree for torch tensors: checks and allocation.
#include "common/build_tree.h"

#include "common/tree.h"
#include "ops/match.h"
#include "ops/ops.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> build_tree(const Tensor& node_scores,
                                                                      const Tensor& node_tokens,
                                                                      const Tensor& node_parents,
                                                                      const Tensor& context_len, int64_t num_nodes) {
  Match m("build_tree");
  m.tensor("node_scores", node_scores, "B M", Kind::kFloat32);
  m.tensor("node_tokens", node_tokens, "B M", Kind::kInt32);
  m.tensor("node_parents", node_parents, "B M", Kind::kInt32);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  const int64_t most = m["M"] < kMaxNodes ? m["M"] : kMaxNodes;
  EAGLE_CHECK(num_nodes >= 1 && num_nodes <= most, "build_tree: num_nodes must be between 1 and ", most,
              " (history slots, at most ", kMaxNodes, "), got ", num_nodes);
  const int64_t batch = m["B"], words = (num_nodes + kMaskWordBits - 1) / kMaskWordBits;
  const auto per_node = [&] { return empty_like_device(node_scores, {batch, num_nodes}, ScalarType::Int); };
  Tensor draft_tokens = per_node(), parent = per_node(), depth = per_node();
  Tensor position_ids = per_node(), node_slots = per_node();
  Tensor ancestor_mask = empty_like_device(node_scores, {batch, num_nodes, words}, ScalarType::Long);
  const BuildTreeParams p{
      .node_scores = node_scores.const_data_ptr<float>(),
      .node_tokens = node_tokens.const_data_ptr<int32_t>(),
      .node_parents = node_parents.const_data_ptr<int32_t>(),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .draft_tokens = draft_tokens.mutable_data_ptr<int32_t>(),
      .parent = parent.mutable_data_ptr<int32_t>(),
      .depth = depth.mutable_data_ptr<int32_t>(),
      .position_ids = position_ids.mutable_data_ptr<int32_t>(),
      .ancestor_mask = ancestor_mask.mutable_data_ptr<int64_t>(),
      .node_slots = node_slots.mutable_data_ptr<int32_t>(),
      .batch = batch,
      .slots = m["M"],
      .num_nodes = num_nodes,
      .words = words,
  };
#ifdef EAGLE_WITH_CUDA
  if (node_scores.is_cuda()) {
    const DeviceGuard guard(node_scores.get_device_index());
    cuda::build_tree(p, current_stream(node_scores));
    return {draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots};
  }
#endif
  cpu::build_tree(p, torch_parallel_for());
  return {draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots};
}

}  // namespace eagle::ops
