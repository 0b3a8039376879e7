// rms_norm: a block per row.
#include "common/rms_norm.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_norm.cuh"

namespace eagle::cuda {
namespace {

// grid: (rows)
template <class T>
__global__ __launch_bounds__(kNormThreads) void rms_norm_kernel(const __grid_constant__ RmsNormParams p) {
  const T* weight = static_cast<const T*>(p.weight);
  prefetch_row(weight, p.size);
  wait_for_earlier_kernels();
  normalise_row(reinterpret_cast<const T*>(p.input[blockIdx.x]), weight, p.size, p.eps,
                reinterpret_cast<T*>(p.output[blockIdx.x]));
}

}  // namespace

void rms_norm(const RmsNormParams& p, void* stream) {
  if (p.input.count == 0) return;
  dispatch(p.dtype,
           [&](auto element) { launch(rms_norm_kernel<decltype(element)>, p.input.count, kNormThreads, stream, p); });
  check_launch("rms_norm");
}

}  // namespace eagle::cuda
