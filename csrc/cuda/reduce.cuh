// Reductions over the threads of a warp and of a block; every thread gets the result.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/max_or_nan.cuh"

namespace eagle::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ inline int warp_id() { return static_cast<int>(threadIdx.x / kWarp); }
__device__ inline int num_warps() { return static_cast<int>(blockDim.x / kWarp); }

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};
struct MaxOrNan {
  __device__ float operator()(float a, float b) const { return max_or_nan(a, b); }
};

template <class T, class Op>
__device__ T warp_reduce(T value, Op op) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = op(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

__device__ inline uint64_t warp_or(uint64_t value) {
  const uint32_t high = __reduce_or_sync(kAllLanes, static_cast<uint32_t>(value >> 32));
  return uint64_t{high} << 32 | __reduce_or_sync(kAllLanes, static_cast<uint32_t>(value));
}

// All threads of the block must call it; whole warps only.
template <class T, class Op>
__device__ T block_reduce(T value, T identity, Op op) {
  __shared__ T of_warp[kWarp];
  value = warp_reduce(value, op);
  __syncthreads();  // an earlier reduction may still be reading
  if (lane_id() == 0) of_warp[warp_id()] = value;
  __syncthreads();
  return warp_reduce(lane_id() < num_warps() ? of_warp[lane_id()] : identity, op);
}

}  // namespace eagle::cuda
