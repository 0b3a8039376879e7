// Kernels with mistakes that the emulation must expose, for ctypes as in harness.cpp.
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"

namespace {

using namespace eagle::cuda;

// Reverses 64 numbers through shared memory; wrong without the barrier.
__global__ void reverse(const int32_t* in, int32_t* out, bool with_barrier) {
  __shared__ int32_t tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

// Half of a warp votes while the other half shuffles.
__global__ void diverge(int32_t* out) {
  if (lane_id() < 16)
    out[threadIdx.x] = static_cast<int32_t>(__ballot_sync(kAllLanes, true));
  else
    out[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0);
}

}  // namespace

extern "C" {

const char* reverse_64(const int32_t* in, int32_t* out, int64_t with_barrier) {
  launch(&reverse, dim3(1), dim3(64), nullptr, in, out, with_barrier != 0);
  return nullptr;
}

const char* diverge_64(int32_t* out) {
  try {
    launch(&diverge, dim3(1), dim3(64), nullptr, out);
    return nullptr;
  } catch (const std::exception&) {
    return "diverged";
  }
}

}  // extern "C"
