// rms_norm for torch tensors: checks and device dispatch.
#include "common/rms_norm.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

Tensor rms_norm(const Tensor& input, const Tensor& weight, double eps) {
  Match m("rms_norm");
  m.tensor("input", input, "... H", Kind::kFloating, /*strided=*/true);
  m.tensor("weight", weight, "H", Kind::kFloating);
  m.same_dtype("weight", weight, "input", input);
  const Rows rows = rows_of("rms_norm", "input", input);
  Tensor output = empty_with_last(input, m["H"]);
  const RmsNormParams p{
      .dtype = float_dtype(input),
      .input = rows,
      .weight = weight.const_data_ptr(),
      .output = contiguous_rows(output.mutable_data_ptr(), rows.count, m["H"] * output.element_size()),
      .size = m["H"],
      .eps = static_cast<float>(eps),
  };
#ifdef EAGLE_WITH_CUDA
  if (input.is_cuda()) {
    const DeviceGuard guard(input.get_device_index());
    cuda::rms_norm(p, current_stream(input));
    return output;
  }
#endif
  cpu::rms_norm(p, torch_parallel_for());
  return output;
}

}  // namespace eagle::ops
