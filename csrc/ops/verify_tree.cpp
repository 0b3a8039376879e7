// verify_tree for torch tensors: checks, allocation and device dispatch.
#include "common/verify_tree.h"

#include "ops/match.h"
#include "ops/ops.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor, Tensor> verify_tree(const Tensor& draft_tokens, const Tensor& parent,
                                               const Tensor& target_tokens, int64_t max_depth) {
  Match m("verify_tree");
  m.tensor("draft_tokens", draft_tokens, "B N", Kind::kInt32);
  m.tensor("parent", parent, "B N", Kind::kInt32);
  m.tensor("target_tokens", target_tokens, "B N", Kind::kInt32);
  EAGLE_CHECK(m["N"] >= 1, "verify_tree: draft_tokens must hold at least the root of each tree");
  EAGLE_CHECK(max_depth >= 0, "verify_tree: max_depth must not be negative, got ", max_depth);
  Tensor accept_index = empty_like_device(draft_tokens, {m["B"], max_depth + 1}, ScalarType::Int);
  Tensor accept_length = empty_like_device(draft_tokens, {m["B"]}, ScalarType::Int);
  Tensor bonus_token = empty_like_device(draft_tokens, {m["B"]}, ScalarType::Int);
  const VerifyTreeParams p{
      .accept_index = accept_index.mutable_data_ptr<int32_t>(),
      .accept_length = accept_length.mutable_data_ptr<int32_t>(),
      .bonus_token = bonus_token.mutable_data_ptr<int32_t>(),
      .draft_tokens = draft_tokens.const_data_ptr<int32_t>(),
      .parent = parent.const_data_ptr<int32_t>(),
      .target_tokens = target_tokens.const_data_ptr<int32_t>(),
      .batch = m["B"],
      .num_nodes = m["N"],
      .max_depth = max_depth,
  };
#ifdef EAGLE_WITH_CUDA
  if (draft_tokens.is_cuda()) {
    const DeviceGuard guard(draft_tokens.get_device_index());
    cuda::verify_tree(p, current_stream(draft_tokens));
    return {accept_index, accept_length, bonus_token};
  }
#endif
  cpu::verify_tree(p, torch_parallel_for());
  return {accept_index, accept_length, bonus_token};
}

}  // namespace eagle::ops
