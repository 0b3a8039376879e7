// rope: queries and keys in one launch, every operation rounded as eager mode rounds it.
#include "common/rope.h"
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 128;

// a * cos + b * sin, three roundings; the intrinsics keep float32 from being fused into fewer.
template <class T>
__device__ T rotate(float a, float cos, float b, float sin) {
  return from_float<T>(__fadd_rn(rounded<T>(__fmul_rn(a, cos)), rounded<T>(__fmul_rn(b, sin))));
}

// grid: (pairs of elements of all query heads, then of all key heads); a thread per pair (i, i + head_dim / 2).
template <class T>
__global__ __launch_bounds__(kThreads) void rope_kernel(const __grid_constant__ RopeParams p) {
  const int64_t half = p.head_dim / 2, query_pairs = p.batch * p.query_heads * p.rows * half;
  int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool is_key = pair >= query_pairs;
  if (is_key) pair -= query_pairs;
  const int64_t heads = is_key ? p.key_heads : p.query_heads, row = pair / half, i = pair % half;
  const int64_t table_row = row / (heads * p.rows) * p.rows + row % p.rows;  // rows count [batch, heads, rows]
  const T* from = reinterpret_cast<const T*>((is_key ? p.key : p.query)[row]) + i;
  const T* cos = reinterpret_cast<const T*>(p.cos[table_row]) + i;
  const T* sin = reinterpret_cast<const T*>(p.sin[table_row]) + i;
  T* to = static_cast<T*>(is_key ? p.key_output : p.query_output) + row * p.head_dim + i;
  wait_for_earlier_kernels();
  if (row >= p.batch * heads * p.rows) return;
  const float x[2] = {to_float(from[0]), to_float(from[half])};
  const float c[2] = {to_float(cos[0]), to_float(cos[half])}, s[2] = {to_float(sin[0]), to_float(sin[half])};
  to[0] = rotate<T>(x[0], c[0], -x[1], s[0]);
  to[half] = rotate<T>(x[1], c[1], x[0], s[1]);
}

}  // namespace

void rope(const RopeParams& p, void* stream) {
  const int64_t pairs = p.batch * (p.query_heads + p.key_heads) * p.rows * (p.head_dim / 2);
  if (pairs == 0) return;
  dispatch(p.dtype, [&](auto element) {
    launch(rope_kernel<decltype(element)>, ceil_div(pairs, kThreads), kThreads, stream, p);
  });
  check_launch("rope");
}

}  // namespace eagle::cuda
