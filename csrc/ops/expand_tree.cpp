// expand_tree for torch tensors: checks and allocation.
#include "common/expand_tree.h"

#include "ops/match.h"
#include "ops/ops.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> expand_tree(const Tensor& frontier_scores,
                                                               const Tensor& frontier_slots,
                                                               const Tensor& frontier_mask, const Tensor& logprobs,
                                                               const Tensor& token_ids, Tensor node_scores,
                                                               Tensor node_tokens, Tensor node_parents,
                                                               int64_t slot_offset, int64_t row_offset) {
  Match m("expand_tree");
  m.tensor("logprobs", logprobs, "B F K", Kind::kFloat32);
  m.tensor("token_ids", token_ids, "B F K", Kind::kInt32);
  m.tensor("frontier_scores", frontier_scores, "B F", Kind::kFloat32);
  m.tensor("frontier_slots", frontier_slots, "B F", Kind::kInt32);
  m.tensor("frontier_mask", frontier_mask, "B F W", Kind::kInt64);
  m.tensor("node_scores", node_scores, "B M", Kind::kFloat32);
  m.tensor("node_tokens", node_tokens, "B M", Kind::kInt32);
  m.tensor("node_parents", node_parents, "B M", Kind::kInt32);
  const int64_t batch = m["B"], branching = m["K"], level_end = slot_offset + m["F"] * m["K"];
  EAGLE_CHECK(slot_offset >= 0 && level_end <= m["M"], "expand_tree: slots ", slot_offset, "..", level_end - 1,
              " do not fit into a history of ", m["M"], "; allocate 1 + K + (D - 1) * K * K slots");
  EAGLE_CHECK(row_offset >= 0 && row_offset + branching <= 64 * m["W"], "expand_tree: rows ", row_offset, "..",
              row_offset + branching - 1, " do not fit into ", m["W"], " mask words of 64 rows; give more words");
  EAGLE_CHECK(m["F"] > 0 || branching == 0, "expand_tree: the frontier is empty; start with the root as F = 1");
  Tensor next_scores = empty_like_device(logprobs, {batch, branching}, ScalarType::Float);
  Tensor next_slots = empty_like_device(logprobs, {batch, branching}, ScalarType::Int);
  Tensor next_tokens = empty_like_device(logprobs, {batch, branching}, ScalarType::Int);
  Tensor next_origin = empty_like_device(logprobs, {batch, branching}, ScalarType::Int);
  Tensor next_mask = empty_like_device(logprobs, {batch, branching, m["W"]}, ScalarType::Long);
  const ExpandTreeParams p{
      .frontier_scores = frontier_scores.const_data_ptr<float>(),
      .frontier_slots = frontier_slots.const_data_ptr<int32_t>(),
      .frontier_mask = frontier_mask.const_data_ptr<int64_t>(),
      .logprobs = logprobs.const_data_ptr<float>(),
      .token_ids = token_ids.const_data_ptr<int32_t>(),
      .node_scores = node_scores.mutable_data_ptr<float>(),
      .node_tokens = node_tokens.mutable_data_ptr<int32_t>(),
      .node_parents = node_parents.mutable_data_ptr<int32_t>(),
      .next_scores = next_scores.mutable_data_ptr<float>(),
      .next_slots = next_slots.mutable_data_ptr<int32_t>(),
      .next_tokens = next_tokens.mutable_data_ptr<int32_t>(),
      .next_origin = next_origin.mutable_data_ptr<int32_t>(),
      .next_mask = next_mask.mutable_data_ptr<int64_t>(),
      .batch = batch,
      .frontier = m["F"],
      .branching = branching,
      .words = m["W"],
      .slots = m["M"],
      .slot_offset = slot_offset,
      .row_offset = row_offset,
  };
#ifdef EAGLE_WITH_CUDA
  if (logprobs.is_cuda()) {
    const DeviceGuard guard(logprobs.get_device_index());
    cuda::expand_tree(p, current_stream(logprobs));
    return {next_scores, next_slots, next_tokens, next_origin, next_mask};
  }
#endif
  cpu::expand_tree(p, torch_parallel_for());
  return {next_scores, next_slots, next_tokens, next_origin, next_mask};
}

}  // namespace eagle::ops
