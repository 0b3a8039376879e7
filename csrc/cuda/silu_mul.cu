// silu_mul: elementwise, 16 bytes a thread where rows allow.
#include "common/silu_mul.h"
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/silu.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 256;

// grid: (rows, stretches of a row); a thread per octet
template <class T>
__global__ __launch_bounds__(kThreads) void silu_mul_kernel(const __grid_constant__ SiluMulParams p) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kOctet;
  if (i >= p.size) return;
  const Octet<T> gate = load_octet(row_at<T>(p.gate[row], 0, p.size), i);
  const Octet<T> up = load_octet(row_at<T>(p.up[row], 0, p.size), i);
  Octet<T> product;
#pragma unroll
  for (int j = 0; j < kOctet; ++j)
    product.value[j] = from_float<T>(rounded<T>(silu(to_float(gate.value[j]))) * to_float(up.value[j]));
  T* to = static_cast<T*>(p.output) + row * p.size;
  store_octet(to, p.size, reinterpret_cast<uintptr_t>(to) % sizeof(uint4) == 0, i, product);
}

}  // namespace

void silu_mul(const SiluMulParams& p, void* stream) {
  if (p.gate.count == 0 || p.size == 0) return;
  const dim3 grid(p.gate.count, ceil_div(p.size, kThreads * kOctet));
  dispatch(p.dtype, [&](auto element) { launch(silu_mul_kernel<decltype(element)>, grid, kThreads, stream, p); });
  check_launch("silu_mul");
}

}  // namespace eagle::cuda
