// linear: the product goes straight to the output, or, split where there are no clusters, through a second small
// kernel.
#include "common/linear.h"
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/partials.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = kWarp;  // so that few rows reach many multiprocessors

GemmParams product(const LinearParams& p) {
  return {.dtype = p.dtype, .input = p.input, .weight = p.weight, .inner = p.inner, .outputs = p.outputs};
}

// grid: (rows, stretches of a row); a thread per octet
template <class T>
__global__ __launch_bounds__(kThreads) void finish_kernel(const __grid_constant__ LinearParams p,
                                                          const __grid_constant__ Partials partials) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, first = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kOctet;
  if (first >= p.outputs) return;
  Octet<float> sum[1];
  partials.sum(row, {first}, sum);
  const Octet<T> bias = p.bias ? load_octet(row_at<T>(p.bias, 0, p.outputs), first) : Octet<T>{};
  store_rounded(static_cast<T*>(p.output) + row * p.outputs, p.outputs, first,
                [&](int j) { return sum[0].value[j] + to_float(bias.value[j]); });
}

}  // namespace

int64_t linear_workspace(const LinearParams& p) {
  return gemm_is_direct(product(p)) ? 0 : gemm_partials_bytes(product(p));
}

void linear(const LinearParams& p, void* workspace, void* stream) {
  if (p.input.count == 0 || p.outputs == 0) return;
  const GemmParams g = product(p);
  if (gemm_is_direct(g)) {
    gemm(g, {.output = p.output, .bias = p.bias}, stream);
  } else {
    float* sums = static_cast<float*>(workspace);
    gemm(g, {.partials = sums}, stream);
    const dim3 grid(p.input.count, ceil_div(p.outputs, kThreads * kOctet));
    dispatch_halves(p.dtype, [&](auto element) {
      launch(finish_kernel<decltype(element)>, grid, kThreads, stream, p,
             Partials{sums, gemm_splits(g), p.input.count, p.outputs});
    });
  }
  check_launch("linear");
}

}  // namespace eagle::cuda
