// compact_kv on the CPU: rows only move towards the front, so ascending order is safe in place.
#include "common/compact_kv.h"

#include <algorithm>
#include <cstring>

namespace eagle::cpu {

void compact_kv(const CompactKvParams& p, ParallelFor parallel_for) {
  parallel_for(p.num_caches * p.batch, 8, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const KvCacheView& cache = p.caches[item / p.batch];
      const int64_t b = item % p.batch;
      const int32_t* path = p.accept_index + b * p.path_length;
      const int64_t rows = std::min(int64_t{p.accept_length[b]} + 1, p.path_length);
      for (int64_t i = 0; i < rows; ++i) {
        if (path[i] == i) continue;
        const CacheRow from = locate(p.pages, b, int64_t{p.context_len[b]} + path[i]);
        const CacheRow to = locate(p.pages, b, int64_t{p.context_len[b]} + i);
        for (int64_t head = 0; head < cache.num_heads; ++head) {
          const char* source = cache(from, head);
          char* target = cache(to, head);
          if (source && target) std::memcpy(target, source, cache.row_bytes);
        }
      }
    }
  });
}

}  // namespace eagle::cpu
