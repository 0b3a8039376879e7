// compact_kv: all layers of all caches in one launch, 16 bytes a thread.
#include <algorithm>
#include <cstdint>

#include "common/compact_kv.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int kCachesPerLaunch = 128;  // views travel as kernel parameters: 7 KB of the 32764 bytes since CUDA 12.1
constexpr int kThreads = 128;
constexpr int kRowsInFlight = 8;

struct CacheTable {
  KvCacheView caches[kCachesPerLaunch];
};

// grid: (caches, batch, heads); a thread owns one column of kWord bytes of every row, so that no other thread reads
// what it overwrites and no barrier is needed.
template <class Word>
__global__ void compact_kv_kernel(const __grid_constant__ CacheTable table, const CompactKvParams p) {
  wait_for_earlier_kernels();
  const KvCacheView cache = table.caches[blockIdx.x];
  const int64_t b = blockIdx.y;
  if (blockIdx.z >= cache.num_heads) return;
  const int32_t* path = p.accept_index + b * p.path_length;
  const int64_t rows = min(static_cast<int64_t>(p.accept_length[b]) + 1, p.path_length), context = p.context_len[b];
  const auto row = [&](int64_t node) { return cache(locate(p.pages, b, context + node), blockIdx.z); };
  for (int64_t column = threadIdx.x; column * sizeof(Word) < cache.row_bytes; column += blockDim.x) {
    for (int64_t first = 1; first < rows; first += kRowsInFlight) {
      Word staged[kRowsInFlight];
      bool found[kRowsInFlight];
#pragma unroll
      for (int i = 0; i < kRowsInFlight; ++i) {
        const char* from = first + i < rows ? row(path[first + i]) : nullptr;
        found[i] = from != nullptr;
        if (found[i]) staged[i] = reinterpret_cast<const Word*>(from)[column];
      }
#pragma unroll
      for (int i = 0; i < kRowsInFlight; ++i) {
        char* to = found[i] ? row(first + i) : nullptr;
        if (to) reinterpret_cast<Word*>(to)[column] = staged[i];
      }
    }
  }
}

bool aligned16(const KvCacheView& c) {
  return ((reinterpret_cast<uintptr_t>(c.data) | c.row_bytes | c.batch_stride | c.head_stride | c.row_stride) & 15) ==
         0;
}

}  // namespace

void compact_kv(const CompactKvParams& p, void* stream) {
  if (p.batch == 0) return;
  for (int64_t first = 0; first < p.num_caches; first += kCachesPerLaunch) {
    const int64_t count = std::min<int64_t>(kCachesPerLaunch, p.num_caches - first);
    CacheTable table;
    std::copy_n(p.caches + first, count, table.caches);
    int64_t heads = 0;
    for (int64_t i = 0; i < count; ++i) heads = std::max(heads, table.caches[i].num_heads);
    if (heads == 0) continue;
    const dim3 grid(count, p.batch, heads);
    const bool aligned = std::all_of(table.caches, table.caches + count, aligned16);
    launch(aligned ? &compact_kv_kernel<uint4> : &compact_kv_kernel<uint16_t>, grid, dim3(kThreads), stream, table, p);
  }
  check_launch("compact_kv");
}

}  // namespace eagle::cuda
