// draft_mlp: two products, the gate between them and the residual behind them.
#include <algorithm>

#include "common/draft_mlp.h"
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/partials.cuh"
#include "cuda/silu.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 256;
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

// grid: (rows, stretches of a row); the gate's outputs come first, then as many of the other half.
template <class T>
__global__ __launch_bounds__(kThreads) void gate_kernel(const __grid_constant__ Partials partials, T* activation) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const int64_t size = partials.outputs / 2;
  if (i >= size) return;
  const float gate = partials.sum(row, i), up = partials.sum(row, i + size);
  activation[row * size + i] = from_float<T>(silu(gate) * up);
}

// grid: (rows, stretches of a row)
template <class T>
__global__ __launch_bounds__(kThreads) void residual_kernel(const __grid_constant__ DraftMlpParams p,
                                                            const __grid_constant__ Partials partials) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (i >= p.size) return;
  const float residual = to_float(reinterpret_cast<const T*>(p.residual[row])[i]);
  static_cast<T*>(p.hidden)[row * p.size + i] = from_float<T>(partials.sum(row, i) + residual);
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
  const GemmParams first = gate_up(p), second = down(p, activation);
  dispatch(p.dtype, [&](auto element) {
    using T = decltype(element);
    gemm(first, {.partials = sums}, stream);
    launch(gate_kernel<T>, dim3(rows, ceil_div(p.intermediate, kThreads)), kThreads, stream,
           Partials{sums, gemm_splits(first), rows, first.outputs}, static_cast<T*>(activation));
    gemm(second, {.partials = sums}, stream);
    launch(residual_kernel<T>, dim3(rows, ceil_div(p.size, kThreads)), kThreads, stream, p,
           Partials{sums, gemm_splits(second), rows, second.outputs});
  });
  check_launch("draft_mlp");
}

}  // namespace eagle::cuda
