// gumbel_noise: four tokens a thread, one Philox block.
#include "common/gumbel_noise.h"
#include "cuda/dependent.cuh"
#include "cuda/keyed_noise.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 256;

// grid: (batch * rows, blocks of 1024 tokens).
__global__ void __launch_bounds__(kThreads) gumbel_noise_kernel(const GumbelNoiseParams p) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x;
  const int64_t first = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kNoiseTokens;
  if (first >= p.num_tokens) return;
  const NoiseKey noise(p.seed[row / p.rows], p.position_ids[row], p.stream);
  const PhiloxBlock<OneLane> bits = noise.bits(first);
  float noises[kNoiseTokens];
#pragma unroll
  for (int i = 0; i < kNoiseTokens; ++i) noises[i] = gumbel<OneLane>(bits.word[i]);
  float* out = p.noise + row * p.num_tokens + first;
  if (p.num_tokens % kNoiseTokens == 0) {
    *reinterpret_cast<float4*>(out) = {noises[0], noises[1], noises[2], noises[3]};
    return;
  }
#pragma unroll
  for (int i = 0; i < kNoiseTokens; ++i)
    if (first + i < p.num_tokens) out[i] = noises[i];
}

}  // namespace

void gumbel_noise(const GumbelNoiseParams& p, void* stream) {
  if (p.batch * p.rows * p.num_tokens == 0) return;
  const dim3 grid(p.batch * p.rows, ceil_div(p.num_tokens, kThreads * kNoiseTokens));
  launch(&gumbel_noise_kernel, grid, dim3(kThreads), stream, p);
  check_launch("gumbel_noise");
}

}  // namespace eagle::cuda
