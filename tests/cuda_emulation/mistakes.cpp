// Kernels with mistakes that the emulation must expose, for ctypes as in harness.cpp.
#include <string>

#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"

namespace {

using namespace eagle::cuda;

// Reverses 64 numbers through shared memory; wrong without the barrier.
__global__ void reverse(const int32_t* in, int32_t* out, bool with_barrier) {
  wait_for_earlier_kernels();
  __shared__ int32_t tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

// Half of a warp votes while the other half shuffles.
__global__ void diverge(int32_t* out) {
  wait_for_earlier_kernels();
  if (lane_id() < 16)
    out[threadIdx.x] = static_cast<int32_t>(__ballot_sync(kAllLanes, true));
  else
    out[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0);
}

// The last thread leaves before it has waited for earlier kernels.
__global__ void leave_early(int32_t* out) {
  if (threadIdx.x == 63) return;
  wait_for_earlier_kernels();
  out[threadIdx.x] = 0;
}

template <class Kernel>
const char* message_of(Kernel* kernel, int32_t* out) {
  static std::string message;
  try {
    launch(kernel, dim3(1), dim3(64), nullptr, out);
    return nullptr;
  } catch (const std::exception& failure) {
    return (message = failure.what()).c_str();
  }
}

}  // namespace

extern "C" {

const char* reverse_64(const int32_t* in, int32_t* out, int64_t with_barrier) {
  launch(&reverse, dim3(1), dim3(64), nullptr, in, out, with_barrier != 0);
  return nullptr;
}

const char* diverge_64(int32_t* out) { return message_of(&diverge, out); }
const char* leave_early_64(int32_t* out) { return message_of(&leave_early, out); }

}  // extern "C"
