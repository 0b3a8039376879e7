// gumbel_noise for torch tensors: checks, allocation and device dispatch.
#include "common/gumbel_noise.h"

#include "ops/match.h"
#include "ops/ops.h"

namespace eagle::ops {

Tensor gumbel_noise(const Tensor& seed, const Tensor& position_ids, int64_t num_tokens, int64_t stream) {
  Match m("gumbel_noise");
  m.tensor("seed", seed, "B", Kind::kInt64);
  m.tensor("position_ids", position_ids, "B N", Kind::kInt32);
  EAGLE_CHECK(num_tokens >= 0, "gumbel_noise: num_tokens must not be negative, got ", num_tokens);
  EAGLE_CHECK(stream >= 0 && stream <= 4, "gumbel_noise: stream must be 0 to 4, got ", stream);
  Tensor noise = empty_like_device(seed, {m["B"], m["N"], num_tokens}, ScalarType::Float);
  const GumbelNoiseParams p{
      .noise = noise.mutable_data_ptr<float>(),
      .seed = seed.const_data_ptr<int64_t>(),
      .position_ids = position_ids.const_data_ptr<int32_t>(),
      .batch = m["B"],
      .rows = m["N"],
      .num_tokens = num_tokens,
      .stream = static_cast<Stream>(stream),
  };
#ifdef EAGLE_WITH_CUDA
  if (seed.is_cuda()) {
    const DeviceGuard guard(seed.get_device_index());
    cuda::gumbel_noise(p, current_stream(seed));
    return noise;
  }
#endif
  cpu::gumbel_noise(p, torch_parallel_for());
  return noise;
}

}  // namespace eagle::ops
