// topk_logprobs for torch tensors: checks, allocation and device dispatch.
#include "common/topk_logprobs.h"

#include <algorithm>

#include "ops/match.h"
#include "ops/ops.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor, Tensor> topk_logprobs(const Tensor& logits, int64_t k, const std::optional<Tensor>& d2t) {
  constexpr int64_t kMaxK = 64;
  Match m("topk_logprobs");
  m.tensor("logits", logits, "R V", Kind::kFloating, /*strided=*/true);
  EAGLE_CHECK(logits.size(1) <= 1 || logits.stride(1) == 1,
              "topk_logprobs: the last dimension of logits must be contiguous; call .contiguous() on it");
  if (d2t) m.tensor("d2t", *d2t, "V", Kind::kInt32);
  EAGLE_CHECK(k >= 1 && k <= std::min(m["V"], kMaxK), "topk_logprobs: k must be 1 to min(vocabulary, ", kMaxK,
              "), got ", k, " with vocabulary ", m["V"]);
  Tensor logprobs = empty_like_device(logits, {m["R"], k}, ScalarType::Float);
  Tensor token_ids = empty_like_device(logits, {m["R"], k}, ScalarType::Int);
  Tensor valid = empty_like_device(logits, {m["R"]}, ScalarType::Bool);
  const TopkLogprobsParams p{
      .logprobs = logprobs.mutable_data_ptr<float>(),
      .token_ids = token_ids.mutable_data_ptr<int32_t>(),
      .valid = valid.mutable_data_ptr<bool>(),
      .logits = logits.const_data_ptr(),
      .dtype = float_dtype(logits),
      .row_stride = logits.stride(0),
      .d2t = d2t ? d2t->const_data_ptr<int32_t>() : nullptr,
      .rows = m["R"],
      .vocabulary = m["V"],
      .k = k,
  };
#ifdef EAGLE_WITH_CUDA
  if (logits.is_cuda()) {
    const DeviceGuard guard(logits.get_device_index());
    const Tensor scratch = workspace(logits, cuda::topk_logprobs_workspace(p));
    cuda::topk_logprobs(p, scratch.mutable_data_ptr(), current_stream(logits));
    return {logprobs, token_ids, valid};
  }
#endif
  cpu::topk_logprobs(p, torch_parallel_for());
  return {logprobs, token_ids, valid};
}

}  // namespace eagle::ops
