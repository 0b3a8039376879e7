// lm_head_topk for torch tensors: checks and device dispatch.
#include "common/lm_head_topk.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor, Tensor, Tensor> lm_head_topk(const Tensor& hidden_states, const Tensor& norm_weight,
                                                        double eps, const Tensor& lm_head_weight, int64_t k,
                                                        const std::optional<Tensor>& d2t,
                                                        const std::optional<Tensor>& lm_head_scale) {
  Match m("lm_head_topk");
  m.tensor("hidden_states", hidden_states, "B Q H", Kind::kFloating, /*strided=*/true);
  m.tensor("norm_weight", norm_weight, "H", Kind::kFloating);
  const Weight lm_head = m.weight("lm_head_weight", lm_head_weight, "V H", "lm_head_scale", lm_head_scale, "V",
                                  "hidden_states", hidden_states);
  m.same_dtype("norm_weight", norm_weight, "hidden_states", hidden_states);
  if (d2t) m.tensor("d2t", *d2t, "V", Kind::kInt32);
  EAGLE_CHECK(k >= 1 && k <= std::min<int64_t>(m["V"], 64), "lm_head_topk: k is ", k,
              ", expected 1 <= k <= min(V, 64) with V = ", m["V"]);
  const int64_t batch = m["B"], rows = m["Q"];
  Tensor normed = empty_with_last(hidden_states, m["H"]);
  Tensor logprobs = empty_like_device(hidden_states, {batch, rows, k}, ScalarType::Float);
  Tensor token_ids = empty_like_device(hidden_states, {batch, rows, k}, ScalarType::Int);
  Tensor valid = empty_like_device(hidden_states, {batch, rows}, ScalarType::Bool);
  const LmHeadTopkParams p{
      .dtype = float_dtype(hidden_states),
      .hidden_states = rows_of("lm_head_topk", "hidden_states", hidden_states),
      .norm_weight = norm_weight.const_data_ptr(),
      .lm_head_weight = lm_head,
      .d2t = d2t ? d2t->const_data_ptr<int32_t>() : nullptr,
      .normed = normed.mutable_data_ptr(),
      .logprobs = logprobs.mutable_data_ptr<float>(),
      .token_ids = token_ids.mutable_data_ptr<int32_t>(),
      .valid = valid.mutable_data_ptr<bool>(),
      .size = m["H"],
      .vocabulary = m["V"],
      .k = k,
      .eps = static_cast<float>(eps),
  };
#ifdef EAGLE_WITH_CUDA
  if (hidden_states.is_cuda()) {
    const DeviceGuard guard(hidden_states.get_device_index());
    const Tensor scratch = workspace(hidden_states, cuda::lm_head_topk_workspace(p));
    cuda::lm_head_topk(p, scratch.mutable_data_ptr(), current_stream(hidden_states));
    return {normed, logprobs, token_ids, valid};
  }
#endif
  cpu::lm_head_topk(p, torch_parallel_for());
  return {normed, logprobs, token_ids, valid};
}

}  // namespace eagle::ops
