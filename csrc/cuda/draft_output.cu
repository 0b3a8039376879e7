// draft_output: the projection's partial sums, then residual and norm in one kernel.
#include "common/draft_output.h"
#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/partials.cuh"
#include "cuda/row_norm.cuh"

namespace eagle::cuda {
namespace {

GemmParams product(const DraftOutputParams& p) {
  return {.dtype = p.dtype, .input = p.attention, .weight = p.o_weight, .inner = p.inner, .outputs = p.size};
}

// grid: (rows)
template <class T>
__global__ __launch_bounds__(kNormThreads) void residual_norm_kernel(const __grid_constant__ DraftOutputParams p,
                                                                     const __grid_constant__ Partials partials) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, size = p.size;
  const T* residual = reinterpret_cast<const T*>(p.residual[row]);
  T* hidden = static_cast<T*>(p.hidden) + row * size;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
    hidden[i] = from_float<T>(partials.sum(row, i) + to_float(residual[i]));
  __syncthreads();  // the norm reads in packs what other threads wrote
  normalise_row(hidden, static_cast<const T*>(p.norm_weight), size, p.eps, static_cast<T*>(p.normed) + row * size);
}

}  // namespace

int64_t draft_output_workspace(const DraftOutputParams& p) { return gemm_partials_bytes(product(p)); }

void draft_output(const DraftOutputParams& p, void* workspace, void* stream) {
  const int64_t rows = p.attention.count;
  if (rows == 0) return;
  const GemmParams g = product(p);
  float* sums = static_cast<float*>(workspace);
  gemm(g, {.partials = sums}, stream);
  dispatch(p.dtype, [&](auto element) {
    launch(residual_norm_kernel<decltype(element)>, rows, kNormThreads, stream, p,
           Partials{sums, gemm_splits(g), rows, p.size});
  });
  check_launch("draft_output");
}

}  // namespace eagle::cuda
