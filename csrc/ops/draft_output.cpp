// draft_output for torch tensors: checks and device dispatch.
#include "common/draft_output.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

std::tuple<Tensor, Tensor> draft_output(const Tensor& attention, const Tensor& o_weight, const Tensor& residual,
                                        const Tensor& norm_weight, double eps, const std::optional<Tensor>& o_scale) {
  Match m("draft_output");
  m.tensor("attention", attention, "B Q A", Kind::kFloating, /*strided=*/true);
  const Weight projection = m.weight("o_weight", o_weight, "H A", "o_scale", o_scale, "H", "attention", attention);
  m.tensor("residual", residual, "B Q H", Kind::kFloating, /*strided=*/true);
  m.tensor("norm_weight", norm_weight, "H", Kind::kFloating);
  m.same_dtype("residual", residual, "attention", attention);
  m.same_dtype("norm_weight", norm_weight, "attention", attention);
  Tensor hidden = empty_with_last(residual, m["H"]), normed = empty_with_last(residual, m["H"]);
  const DraftOutputParams p{
      .dtype = float_dtype(attention),
      .attention = rows_of("draft_output", "attention", attention),
      .o_weight = projection,
      .residual = rows_of("draft_output", "residual", residual),
      .norm_weight = norm_weight.const_data_ptr(),
      .hidden = hidden.mutable_data_ptr(),
      .normed = normed.mutable_data_ptr(),
      .inner = m["A"],
      .size = m["H"],
      .eps = static_cast<float>(eps),
  };
#ifdef EAGLE_WITH_CUDA
  if (attention.is_cuda()) {
    const DeviceGuard guard(attention.get_device_index());
    const Tensor scratch = workspace(attention, cuda::draft_output_workspace(p));
    cuda::draft_output(p, scratch.mutable_data_ptr(), current_stream(attention));
    return {hidden, normed};
  }
#endif
  cpu::draft_output(p, torch_parallel_for());
  return {hidden, normed};
}

}  // namespace eagle::ops
