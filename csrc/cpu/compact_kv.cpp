// compact_kv on the CPU: rows only move towards the front, so ascending order is safe in place.
#include "common/compact_kv.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace eagle::cpu {
namespace {

// A row of the first head; those of other heads lie at the same distances.
struct Move {
  const char* from;
  char* to;
};

void find_moves(const CompactKvParams& p, const KvCacheView& cache, int64_t b, std::vector<Move>& moves) {
  const int32_t* path = p.accept_index + b * p.path_length;
  const int64_t rows = std::min(int64_t{p.accept_length[b]} + 1, p.path_length), context = p.context_len[b];
  moves.clear();
  for (int64_t i = 0; i < rows; ++i) {
    if (path[i] == i) continue;
    const char* from = cache(locate(p.pages, b, context + path[i]), 0);
    char* to = cache(locate(p.pages, b, context + i), 0);
    if (from && to) moves.push_back({from, to});
  }
}

}  // namespace

void compact_kv(const CompactKvParams& p, ParallelFor parallel_for) {
  parallel_for(p.num_caches * p.batch, 8, [&](int64_t begin, int64_t end) {
    std::vector<Move> moves;
    for (int64_t item = begin; item < end; ++item) {
      const KvCacheView& cache = p.caches[item / p.batch];
      find_moves(p, cache, item % p.batch, moves);
      for (int64_t head = 0; head < cache.num_heads; ++head)
        for (const Move& move : moves)
          std::memcpy(move.to + head * cache.head_stride, move.from + head * cache.head_stride, cache.row_bytes);
    }
  });
}

}  // namespace eagle::cpu
