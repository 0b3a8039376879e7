// linear for torch tensors: checks and device dispatch.
#include "common/linear.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const std::optional<Tensor>& weight_scale) {
  Match m("linear");
  m.tensor("input", input, "... K", Kind::kFloating, /*strided=*/true);
  const Weight matrix = m.weight("weight", weight, "O K", "weight_scale", weight_scale, "O", "input", input);
  const void* added = m.optional("bias", bias, "O", "input", input);
  Tensor output = empty_with_last(input, m["O"]);
  const LinearParams p{
      .dtype = float_dtype(input),
      .input = rows_of("linear", "input", input),
      .weight = matrix,
      .bias = added,
      .output = output.mutable_data_ptr(),
      .inner = m["K"],
      .outputs = m["O"],
  };
#ifdef EAGLE_WITH_CUDA
  if (input.is_cuda()) {
    const DeviceGuard guard(input.get_device_index());
    const Tensor scratch = workspace(input, cuda::linear_workspace(p));
    cuda::linear(p, scratch.mutable_data_ptr(), current_stream(input));
    return output;
  }
#endif
  cpu::linear(p, torch_parallel_for());
  return output;
}

}  // namespace eagle::ops
