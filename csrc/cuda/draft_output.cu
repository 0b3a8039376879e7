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

// grid: (rows). So few blocks that each may have all registers.
template <class T>
__global__ __launch_bounds__(kNormThreads, 1) void residual_norm_kernel(const __grid_constant__ DraftOutputParams p,
                                                                        const __grid_constant__ Partials partials) {
  const T* weight = static_cast<const T*>(p.norm_weight);
  prefetch_row(weight, p.size);
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, size = p.size;
  const Row<T> residual = row_at<T>(p.residual[row], 0, size);
  T* hidden = static_cast<T*>(p.hidden) + row * size;
  const bool aligned = reinterpret_cast<uintptr_t>(hidden) % sizeof(uint4) == 0;
  const auto add_residual = [&](int64_t i) {
    const Octet<T> before = load_octet(residual, i);
    Octet<float> sum[1];
    partials.sum(row, {i}, sum);
    Octet<T> after;
#pragma unroll
    for (int j = 0; j < kOctet; ++j) after.value[j] = from_float<T>(sum[0].value[j] + to_float(before.value[j]));
    store_octet(hidden, size, aligned, i, after);
    return after;
  };
  normalise_loaded(add_residual, weight, size, p.eps, static_cast<T*>(p.normed) + row * size);
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
