// silu(x) = x / (1 + exp(-x)).
#pragma once

namespace eagle::cuda {

__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

}  // namespace eagle::cuda
