// write_kv on the CPU: a memcpy for each row of each head.
#include "common/write_kv.h"

#include <cstring>

namespace eagle::cpu {

void write_kv(const WriteKvParams& p, ParallelFor parallel_for) {
  const int64_t heads = p.caches[0].num_heads;
  parallel_for(p.batch * p.rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / p.rows, row = item % p.rows;
      const CacheRow at = locate(p.pages, b, p.cache_rows[item]);
      if (!at.there) continue;
      for (int kind = 0; kind < 2; ++kind)
        for (int64_t head = 0; head < heads; ++head)
          std::memcpy(p.caches[kind](at, head), p.states[kind](b, head, row), p.caches[kind].row_bytes);
    }
  });
}

}  // namespace eagle::cpu
