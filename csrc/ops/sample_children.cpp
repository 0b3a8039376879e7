// sample_children for torch tensors: checks, allocation and device dispatch.
#include "common/sample_children.h"

#include <algorithm>

#include "ops/ops.h"
#include "ops/sampling.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor> sample_children(const Tensor& draft_logits, const Tensor& node_ids,
                                           const Tensor& num_children, const Tensor& num_fixed,
                                           const Tensor& context_len, const Tensor& seed, const Tensor& temperature,
                                           const Tensor& top_k, const Tensor& top_p, const Tensor& min_p,
                                           int64_t max_children, const std::optional<Tensor>& d2t) {
  constexpr int64_t kMaxChildren = 64;
  Match m("sample_children");
  const LogitsView view = match_logits(m, "sample_children", "draft_logits", draft_logits, "B F D");
  m.tensor("node_ids", node_ids, "B F", Kind::kInt32);
  m.tensor("num_children", num_children, "B F", Kind::kInt32);
  m.tensor("num_fixed", num_fixed, "B F", Kind::kInt32);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  const SamplingParamsView requests = match_requests(m, seed, temperature, top_k, top_p, min_p);
  if (d2t) m.tensor("d2t", *d2t, "D", Kind::kInt32);
  EAGLE_CHECK(max_children >= 1 && max_children <= std::min(m["D"], kMaxChildren),
              "sample_children: max_children must be 1 to min(draft vocabulary, ", kMaxChildren, "), got ",
              max_children, " with draft vocabulary ", m["D"]);
  Tensor child_tokens = empty_like_device(node_ids, {m["B"], m["F"], max_children}, ScalarType::Int);
  Tensor child_logprobs = empty_like_device(node_ids, {m["B"], m["F"], max_children}, ScalarType::Float);
  const SampleChildrenParams p{
      .child_tokens = child_tokens.mutable_data_ptr<int32_t>(),
      .child_logprobs = child_logprobs.mutable_data_ptr<float>(),
      .draft_logits = view,
      .node_ids = node_ids.const_data_ptr<int32_t>(),
      .num_children = num_children.const_data_ptr<int32_t>(),
      .num_fixed = num_fixed.const_data_ptr<int32_t>(),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .d2t = d2t ? d2t->const_data_ptr<int32_t>() : nullptr,
      .requests = requests,
      .batch = m["B"],
      .num_nodes = m["F"],
      .vocabulary = m["D"],
      .max_children = max_children,
  };
#ifdef EAGLE_WITH_CUDA
  if (draft_logits.is_cuda()) {
    const DeviceGuard guard(draft_logits.get_device_index());
    const Tensor scratch = workspace(draft_logits, cuda::sample_children_workspace(p));
    cuda::sample_children(p, scratch.mutable_data_ptr(), current_stream(draft_logits));
    return {child_tokens, child_logprobs};
  }
#endif
  cpu::sample_children(p, torch_parallel_for());
  return {child_tokens, child_logprobs};
}

}  // namespace eagle::ops
