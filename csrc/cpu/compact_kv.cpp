// compact_kv on the CPU: rows only move towards the front, so ascending order is safe in place.
#include "common/compact_kv.h"

#include <cstring>

namespace eagle::cpu {

void compact_kv(const CompactKvParams& p, ParallelFor parallel_for) {
  parallel_for(p.num_caches * p.batch, 8, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const KvCacheView& cache = p.caches[item / p.batch];
      const int64_t b = item % p.batch;
      const int32_t* path = p.accept_index + b * p.path_length;
      for (int64_t head = 0; head < cache.num_heads; ++head) {
        char* rows =
            cache.data + b * cache.batch_stride + head * cache.head_stride + p.context_len[b] * cache.row_stride;
        for (int64_t i = 0; i <= p.accept_length[b]; ++i)
          if (path[i] != i)
            std::memcpy(rows + i * cache.row_stride, rows + path[i] * cache.row_stride, cache.row_bytes);
      }
    }
  });
}

}  // namespace eagle::cpu
