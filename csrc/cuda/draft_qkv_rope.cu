// draft_qkv_rope: the projection's partial sums, then bias, norms, rotation and cache writes in one kernel.
#include "common/draft_qkv_rope.h"
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/gemm.h"
#include "cuda/launch.cuh"
#include "cuda/partials.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {
namespace {

GemmParams product(const DraftQkvRopeParams& p) {
  return {.dtype = p.dtype,
          .input = p.x,
          .weight = p.qkv_weight,
          .inner = p.inner,
          .outputs = (p.num_heads + 2 * p.num_kv_heads) * p.head_dim};
}

// grid: (rows, query heads then key heads then value heads); a thread per pair (i, i + head_dim / 2) of its head. A
// device cannot raise: a position outside the tables reads their edge, and a row that the cache does not have
// is not written.
template <class T>
__global__ void rotate_kernel(const __grid_constant__ DraftQkvRopeParams p, const __grid_constant__ Partials partials) {
  wait_for_earlier_kernels();
  const int64_t half = p.head_dim / 2, row = blockIdx.x, b = row / p.rows, q = row % p.rows;
  const bool idle = threadIdx.x >= half;  // reads the last pair, for a block's reduction takes whole warps
  const int64_t i = idle ? half - 1 : threadIdx.x, output = blockIdx.y * p.head_dim + i;
  float sums[2];
  partials.sum(row, {output, output + half}, sums);
  auto [first, second] = sums;
  if (p.qkv_bias) {
    first += to_float(static_cast<const T*>(p.qkv_bias)[output]);
    second += to_float(static_cast<const T*>(p.qkv_bias)[output + half]);
  }
  const int64_t key_head = blockIdx.y - p.num_heads, value_head = key_head - p.num_kv_heads;
  const void* norm = value_head >= 0 ? nullptr : key_head < 0 ? p.q_norm_weight : p.k_norm_weight;
  if (norm) {
    const float squares = block_reduce(idle ? 0.0f : first * first + second * second, 0.0f, Sum());
    const float factor = rsqrtf(squares / static_cast<float>(p.head_dim) + p.norm_eps);
    first *= factor * to_float(static_cast<const T*>(norm)[i]);
    second *= factor * to_float(static_cast<const T*>(norm)[i + half]);
  }
  if (idle) return;
  if (value_head < 0) {
    const int64_t position = min(max(static_cast<int64_t>(p.position_ids[row]), int64_t{0}), p.positions - 1);
    const int64_t at = position * half + i;
    const float cos = p.rope_cos[at], sin = p.rope_sin[at], unrotated = first;
    first = unrotated * cos - second * sin;
    second = second * cos + unrotated * sin;
  }
  T* to;
  if (key_head < 0) {
    to = static_cast<T*>(p.query) + ((b * p.num_heads + blockIdx.y) * p.rows + q) * p.head_dim;
  } else {
    const CacheRow cached = locate(p.pages, b, p.cache_rows[row]);
    if (!cached.there) return;
    const int64_t head = value_head < 0 ? key_head : value_head;
    const Rows& cache = value_head < 0 ? p.key_cache : p.value_cache;
    to = reinterpret_cast<T*>(cache[(cached.page * p.num_kv_heads + head) * p.pages.page_size + cached.row]);
  }
  to[i] = from_float<T>(first);
  to[i + half] = from_float<T>(second);
}

}  // namespace

int64_t draft_qkv_rope_workspace(const DraftQkvRopeParams& p) { return gemm_partials_bytes(product(p)); }

void draft_qkv_rope(const DraftQkvRopeParams& p, void* workspace, void* stream) {
  const int64_t rows = p.x.count;
  if (rows == 0 || p.num_heads == 0) return;
  const GemmParams g = product(p);
  float* sums = static_cast<float*>(workspace);
  gemm(g, {.partials = sums}, stream);
  const dim3 grid(rows, p.num_heads + 2 * p.num_kv_heads);
  const int threads = static_cast<int>(ceil_div(p.head_dim / 2, kWarp)) * kWarp;
  dispatch(p.dtype, [&](auto element) {
    launch(rotate_kernel<decltype(element)>, grid, threads, stream, p, Partials{sums, gemm_splits(g), rows, g.outputs});
  });
  check_launch("draft_qkv_rope");
}

}  // namespace eagle::cuda
