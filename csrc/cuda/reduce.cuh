// Sums and maxima over a warp or a block.
#pragma once
#include <cuda_runtime.h>

namespace eagle::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
  static constexpr float kIdentity = 0;
};

struct Max {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
  static constexpr float kIdentity = -__builtin_huge_valf();
};

// Over kLanes neighbouring lanes; each of them gets the result.
template <class Operation, int kLanes = kWarp>
__device__ float warp_reduce(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    value = Operation()(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// Over a block of whole warps; each thread gets the result. All threads must call.
template <class Operation>
__device__ float block_reduce(float value) {
  __shared__ float partial[kWarp];
  const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  value = warp_reduce<Operation>(value);
  __syncthreads();  // an earlier call's results have been read
  if (lane == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  return warp_reduce<Operation>(lane < warps ? partial[lane] : Operation::kIdentity);
}

}  // namespace eagle::cuda
