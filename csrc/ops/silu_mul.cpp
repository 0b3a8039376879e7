// silu_mul for torch tensors: checks and device dispatch.
#include "common/silu_mul.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace eagle::ops {

Tensor silu_mul(const Tensor& gate, const Tensor& up) {
  Match m("silu_mul");
  m.tensor("gate", gate, "... I", Kind::kFloating, /*strided=*/true);
  m.tensor("up", up, "... I", Kind::kFloating, /*strided=*/true);
  m.same_dtype("up", up, "gate", gate);
  m.same_shape("up", up, "gate", gate);
  Tensor output = empty_with_last(gate, m["I"]);
  const SiluMulParams p{
      .dtype = float_dtype(gate),
      .gate = rows_of("silu_mul", "gate", gate),
      .up = rows_of("silu_mul", "up", up),
      .output = output.mutable_data_ptr(),
      .size = m["I"],
  };
#ifdef EAGLE_WITH_CUDA
  if (gate.is_cuda()) {
    const DeviceGuard guard(gate.get_device_index());
    cuda::silu_mul(p, current_stream(gate));
    return output;
  }
#endif
  cpu::silu_mul(p, torch_parallel_for());
  return output;
}

}  // namespace eagle::ops
