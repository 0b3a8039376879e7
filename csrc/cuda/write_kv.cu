// write_kv: keys and values in one launch, 16 bytes a thread.
#include <cstdint>

#include "common/write_kv.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 128;

// grid: (batch * rows, stretches of the heads' words, keys and values)
template <class Word>
__global__ __launch_bounds__(kThreads) void write_kv_kernel(const __grid_constant__ WriteKvParams p) {
  wait_for_earlier_kernels();
  const KvCacheView& cache = p.caches[blockIdx.z];
  const int words = static_cast<int>(cache.row_bytes / sizeof(Word)), word = blockIdx.y * kThreads + threadIdx.x;
  const int head = word / words, column = word % words;
  if (head >= cache.num_heads) return;
  const int b = blockIdx.x / static_cast<int>(p.rows), row = blockIdx.x % static_cast<int>(p.rows);
  char* to = cache(locate(p.pages, b, p.cache_rows[blockIdx.x]), head);
  if (to == nullptr) return;
  reinterpret_cast<Word*>(to)[column] = reinterpret_cast<const Word*>(p.states[blockIdx.z](b, head, row))[column];
}

bool aligned16(const KvStatesView& states, const KvCacheView& cache) {
  const int64_t bytes = states.batch_stride | states.head_stride | states.row_stride | cache.batch_stride |
                        cache.head_stride | cache.row_stride | cache.row_bytes;
  return ((reinterpret_cast<uintptr_t>(states.data) | reinterpret_cast<uintptr_t>(cache.data) | bytes) & 15) == 0;
}

}  // namespace

void write_kv(const WriteKvParams& p, void* stream) {
  const int64_t rows = p.batch * p.rows, row_bytes = p.caches[0].row_bytes;
  if (rows * p.caches[0].num_heads * row_bytes == 0) return;
  const bool aligned = aligned16(p.states[0], p.caches[0]) && aligned16(p.states[1], p.caches[1]);
  const int64_t words = p.caches[0].num_heads * row_bytes / (aligned ? sizeof(uint4) : sizeof(uint16_t));
  launch(aligned ? &write_kv_kernel<uint4> : &write_kv_kernel<uint16_t>, dim3(rows, ceil_div(words, kThreads), 2),
         dim3(kThreads), stream, p);
  check_launch("write_kv");
}

}  // namespace eagle::cuda
