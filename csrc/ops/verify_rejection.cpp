// verify_rejection for torch tensors: checks, allocation and device dispatch.
#include "common/verify_rejection.h"

#include "ops/ops.h"
#include "ops/sampling.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor, Tensor> verify_rejection(const Tensor& target_logits, const Tensor& draft_logits,
                                                    const Tensor& draft_tokens, const Tensor& parent,
                                                    const Tensor& num_fixed, const Tensor& context_len,
                                                    const Tensor& seed, const Tensor& temperature, const Tensor& top_k,
                                                    const Tensor& top_p, const Tensor& min_p,
                                                    const std::optional<Tensor>& d2t, int64_t max_depth,
                                                    bool traversal) {
  Match m("verify_rejection");
  const LogitsView target = match_logits(m, "verify_rejection", "target_logits", target_logits, "B N V");
  const LogitsView draft = match_logits(m, "verify_rejection", "draft_logits", draft_logits, "B N D");
  m.tensor("draft_tokens", draft_tokens, "B N", Kind::kInt32);
  m.tensor("parent", parent, "B N", Kind::kInt32);
  m.tensor("num_fixed", num_fixed, "B N", Kind::kInt32);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  const SamplingParamsView requests = match_requests(m, seed, temperature, top_k, top_p, min_p);
  if (d2t) m.tensor("d2t", *d2t, "D", Kind::kInt32);
  EAGLE_CHECK(m["N"] >= 1, "verify_rejection: draft_tokens must hold at least the root of each tree");
  EAGLE_CHECK(max_depth >= 0, "verify_rejection: max_depth must not be negative, got ", max_depth);
  Tensor accept_index = empty_like_device(draft_tokens, {m["B"], max_depth + 1}, ScalarType::Int);
  Tensor accept_length = empty_like_device(draft_tokens, {m["B"]}, ScalarType::Int);
  Tensor bonus_token = empty_like_device(draft_tokens, {m["B"]}, ScalarType::Int);
  const VerifyRejectionParams p{
      .accept_index = accept_index.mutable_data_ptr<int32_t>(),
      .accept_length = accept_length.mutable_data_ptr<int32_t>(),
      .bonus_token = bonus_token.mutable_data_ptr<int32_t>(),
      .target_logits = target,
      .draft_logits = draft,
      .draft_tokens = draft_tokens.const_data_ptr<int32_t>(),
      .parent = parent.const_data_ptr<int32_t>(),
      .num_fixed = num_fixed.const_data_ptr<int32_t>(),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .d2t = d2t ? d2t->const_data_ptr<int32_t>() : nullptr,
      .requests = requests,
      .batch = m["B"],
      .num_nodes = m["N"],
      .vocabulary = m["V"],
      .draft_vocabulary = m["D"],
      .max_depth = max_depth,
      .traversal = traversal,
  };
#ifdef EAGLE_WITH_CUDA
  if (target_logits.is_cuda()) {
    const DeviceGuard guard(target_logits.get_device_index());
    const Tensor scratch = workspace(target_logits, cuda::verify_rejection_workspace(p));
    cuda::verify_rejection(p, scratch.mutable_data_ptr(), current_stream(target_logits));
    return {accept_index, accept_length, bonus_token};
  }
#endif
  cpu::verify_rejection(p, torch_parallel_for());
  return {accept_index, accept_length, bonus_token};
}

}  // namespace eagle::ops
