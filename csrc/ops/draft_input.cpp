// draft_input for torch tensors: checks and device dispatch.
#include "common/draft_input.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/range.h"
#include "ops/rows.h"

namespace eagle::ops {

Tensor draft_input(const Tensor& token_ids, const Tensor& hidden_states, const Tensor& embed_weight,
                   const Tensor& embed_norm_weight, const Tensor& hidden_norm_weight, double eps) {
  Match m("draft_input");
  m.tensor("token_ids", token_ids, "B Q", Kind::kInt32);
  m.tensor("hidden_states", hidden_states, "B Q H", Kind::kFloating, /*strided=*/true);
  m.tensor("embed_weight", embed_weight, "V H", Kind::kFloating);
  m.tensor("embed_norm_weight", embed_norm_weight, "H", Kind::kFloating);
  m.tensor("hidden_norm_weight", hidden_norm_weight, "H", Kind::kFloating);
  m.same_dtype("embed_weight", embed_weight, "hidden_states", hidden_states);
  m.same_dtype("embed_norm_weight", embed_norm_weight, "hidden_states", hidden_states);
  m.same_dtype("hidden_norm_weight", hidden_norm_weight, "hidden_states", hidden_states);
  check_range("draft_input", "token_ids", token_ids, 0, m["V"]);
  Tensor output = empty_with_last(hidden_states, 2 * m["H"]);
  const DraftInputParams p{
      .dtype = float_dtype(hidden_states),
      .token_ids = token_ids.const_data_ptr<int32_t>(),
      .hidden_states = rows_of("draft_input", "hidden_states", hidden_states),
      .embed_weight = embed_weight.const_data_ptr(),
      .embed_norm_weight = embed_norm_weight.const_data_ptr(),
      .hidden_norm_weight = hidden_norm_weight.const_data_ptr(),
      .output = output.mutable_data_ptr(),
      .size = m["H"],
      .vocabulary = m["V"],
      .eps = static_cast<float>(eps),
  };
#ifdef EAGLE_WITH_CUDA
  if (token_ids.is_cuda()) {
    const DeviceGuard guard(token_ids.get_device_index());
    cuda::draft_input(p, current_stream(token_ids));
    return output;
  }
#endif
  cpu::draft_input(p, torch_parallel_for());
  return output;
}

}  // namespace eagle::ops
