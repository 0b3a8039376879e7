// draft_mlp for torch tensors: checks and device dispatch.
#include "common/draft_mlp.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

Tensor draft_mlp(const Tensor& normed, const Tensor& gate_up_weight, const Tensor& down_weight, const Tensor& residual,
                 const std::optional<Tensor>& gate_up_scale, const std::optional<Tensor>& down_scale) {
  Match m("draft_mlp");
  m.tensor("normed", normed, "B Q H", Kind::kFloating, /*strided=*/true);
  const Weight down = m.weight("down_weight", down_weight, "H I", "down_scale", down_scale, "H", "normed", normed);
  const Weight gate_up =
      m.weight("gate_up_weight", gate_up_weight, "G H", "gate_up_scale", gate_up_scale, "G", "normed", normed);
  m.tensor("residual", residual, "B Q H", Kind::kFloating, /*strided=*/true);
  m.same_dtype("residual", residual, "normed", normed);
  EAGLE_CHECK(gate_up_weight.size(0) == 2 * m["I"], "draft_mlp: gate_up_weight has ", gate_up_weight.size(0),
              " rows but down_weight has I = ", m["I"], " columns: 2 * I rows are needed, gate rows first");
  Tensor hidden = empty_with_last(residual, m["H"]);
  const DraftMlpParams p{
      .dtype = float_dtype(normed),
      .normed = rows_of("draft_mlp", "normed", normed),
      .gate_up_weight = gate_up,
      .down_weight = down,
      .residual = rows_of("draft_mlp", "residual", residual),
      .hidden = hidden.mutable_data_ptr(),
      .size = m["H"],
      .intermediate = m["I"],
  };
#ifdef EAGLE_WITH_CUDA
  if (normed.is_cuda()) {
    const DeviceGuard guard(normed.get_device_index());
    const Tensor scratch = workspace(normed, cuda::draft_mlp_workspace(p));
    cuda::draft_mlp(p, scratch.mutable_data_ptr(), current_stream(normed));
    return hidden;
  }
#endif
  cpu::draft_mlp(p, torch_parallel_for());
  return hidden;
}

}  // namespace eagle::ops
