// compact_kv: move the accepted rows of a draft tree to the front, in every cache at once.
#pragma once
#include <cstdint>

#include "common/page_table.h"
#include "common/parallel.h"

namespace eagle {

// One cache [batch or pages, num_kv_heads, length, head_dim]; strides in bytes, rows contiguous.
struct KvCacheView {
  char* data;
  int64_t num_heads;
  int64_t length;
  int64_t row_bytes;
  int64_t batch_stride, head_stride, row_stride;

  // Null where the cache has no such row.
  EAGLE_HOST_DEVICE char* operator()(CacheRow at, int64_t head) const {
    if (!at.there || at.row >= length) return nullptr;
    return data + at.page * batch_stride + head * head_stride + at.row * row_stride;
  }
};

struct CompactKvParams {
  const KvCacheView* caches;     // [num_caches]
  const int32_t* accept_index;   // [batch, path_length] node ids, ascending, -1 padded
  const int32_t* accept_length;  // [batch]
  const int32_t* context_len;    // [batch]
  PageTable pages;               // of all caches
  int64_t num_caches;
  int64_t batch;
  int64_t path_length;
};

namespace cpu {
void compact_kv(const CompactKvParams& p, ParallelFor parallel_for);
}
namespace cuda {
void compact_kv(const CompactKvParams& p, void* stream);
}

}  // namespace eagle
