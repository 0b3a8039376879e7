// draft_mlp: a product with the gate behind it, and one with the residual behind it; a kernel each where they are
// direct.
#include <algorithm>

#include "common/draft_mlp.h"
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/partials.cuh"
#include "cuda/reduce.cuh"
#include "cuda/silu.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = kWarp;     // so that few rows reach many multiprocessors
constexpr int64_t kAlignment = 16;  // bytes

GemmParams gate_up(const DraftMlpParams& p) {
  return {
      .dtype = p.dtype, .input = p.normed, .weight = p.gate_up_weight, .inner = p.size, .outputs = 2 * p.intermediate};
}

GemmParams down(const DraftMlpParams& p, void* activation) {
  return {.dtype = p.dtype,
          .input = contiguous_rows(activation, p.normed.count, p.intermediate * element_size(p.dtype)),
          .weight = p.down_weight,
          .inner = p.intermediate,
          .outputs = p.size};
}

// grid: (rows, stretches of a row); a thread per octet; the gate's outputs come first, then as many of the other half.
template <class T>
__global__ __launch_bounds__(kThreads) void gate_kernel(const __grid_constant__ Partials partials, T* activation) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kOctet;
  const int64_t size = partials.outputs / 2;
  if (i >= size) return;
  Octet<float> gate_up[2];
  partials.sum(row, {i, i + size}, gate_up);
  store_rounded(activation + row * size, size, i,
                [&](int j) { return silu(gate_up[0].value[j]) * gate_up[1].value[j]; });
}

// grid: (rows, stretches of a row); a thread per octet
template <class T>
__global__ __launch_bounds__(kThreads) void residual_kernel(const __grid_constant__ DraftMlpParams p,
                                                            const __grid_constant__ Partials partials) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kOctet;
  if (i >= p.size) return;
  const Octet<T> residual = load_octet(row_at<T>(p.residual[row], 0, p.size), i);
  Octet<float> sum[1];
  partials.sum(row, {i}, sum);
  store_rounded(static_cast<T*>(p.hidden) + row * p.size, p.size, i,
                [&](int j) { return sum[0].value[j] + to_float(residual.value[j]); });
}

// Of the larger product's partial sums, before the activation in the workspace.
int64_t partials_bytes(const DraftMlpParams& p) {
  const int64_t bytes = std::max(gemm_partials_bytes(gate_up(p)), gemm_partials_bytes(down(p, nullptr)));
  return ceil_div(bytes, kAlignment) * kAlignment;
}

}  // namespace

int64_t draft_mlp_workspace(const DraftMlpParams& p) {
  return partials_bytes(p) + p.normed.count * p.intermediate * element_size(p.dtype);
}

void draft_mlp(const DraftMlpParams& p, void* workspace, void* stream) {
  const int64_t rows = p.normed.count;
  if (rows == 0) return;
  float* sums = static_cast<float*>(workspace);
  void* activation = static_cast<char*>(workspace) + partials_bytes(p);
  GemmParams first = gate_up(p), second = down(p, activation);
  if (gemm_is_direct(first) && gemm_is_direct(second)) {
    first.gated = true;
    gemm(first, {.output = activation}, stream);
    gemm(second, {.output = p.hidden, .residual = p.residual}, stream);
    return check_launch("draft_mlp");
  }
  dispatch_halves(p.dtype, [&](auto element) {
    using T = decltype(element);
    gemm(first, {.partials = sums}, stream);
    launch(gate_kernel<T>, dim3(rows, ceil_div(p.intermediate, kThreads * kOctet)), kThreads, stream,
           Partials{sums, gemm_splits(first), rows, first.outputs}, static_cast<T*>(activation));
    gemm(second, {.partials = sums}, stream);
    launch(residual_kernel<T>, dim3(rows, ceil_div(p.size, kThreads * kOctet)), kThreads, stream, p,
           Partials{sums, gemm_splits(second), rows, second.outputs});
  });
  check_launch("draft_mlp");
}

}  // namespace eagle::cuda
