// sample_tokens for torch tensors: checks, allocation and device dispatch.
#include "common/sample_tokens.h"

#include "ops/ops.h"
#include "ops/sampling.h"

namespace eagle::ops {

Tensor sample_tokens(const Tensor& logits, const Tensor& position_ids, const Tensor& seed, const Tensor& temperature,
                     const Tensor& top_k, const Tensor& top_p, const Tensor& min_p) {
  Match m("sample_tokens");
  const LogitsView view = match_logits(m, "sample_tokens", "logits", logits, "B N V");
  m.tensor("position_ids", position_ids, "B N", Kind::kInt32);
  const SamplingParamsView requests = match_requests(m, seed, temperature, top_k, top_p, min_p);
  Tensor token_ids = empty_like_device(logits, {m["B"], m["N"]}, ScalarType::Int);
  const SampleTokensParams p{
      .token_ids = token_ids.mutable_data_ptr<int32_t>(),
      .logits = view,
      .position_ids = position_ids.const_data_ptr<int32_t>(),
      .requests = requests,
      .batch = m["B"],
      .num_nodes = m["N"],
      .vocabulary = m["V"],
  };
#ifdef EAGLE_WITH_CUDA
  if (logits.is_cuda()) {
    const DeviceGuard guard(logits.get_device_index());
    const Tensor scratch = workspace(logits, cuda::sample_tokens_workspace(p));
    cuda::sample_tokens(p, scratch.mutable_data_ptr(), current_stream(logits));
    return token_ids;
  }
#endif
  cpu::sample_tokens(p, torch_parallel_for());
  return token_ids;
}

}  // namespace eagle::ops
