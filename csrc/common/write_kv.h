// write_kv: a layer's new keys and values into its caches.
#pragma once
#include <cstdint>

#include "common/compact_kv.h"
#include "common/page_table.h"
#include "common/parallel.h"

namespace eagle {

// New keys or values [batch, num_kv_heads, rows, head_dim]; strides in bytes, rows contiguous.
struct KvStatesView {
  const char* data;
  int64_t batch_stride, head_stride, row_stride;

  EAGLE_HOST_DEVICE const char* operator()(int64_t b, int64_t head, int64_t row) const {
    return data + b * batch_stride + head * head_stride + row * row_stride;
  }
};

struct WriteKvParams {
  KvStatesView states[2];     // keys, values
  KvCacheView caches[2];      // theirs, of the same heads and row_bytes
  PageTable pages;            // of both caches
  const int32_t* cache_rows;  // [batch, rows] positions
  int64_t batch, rows;
};

namespace cpu {
void write_kv(const WriteKvParams& p, ParallelFor parallel_for);
}
namespace cuda {
void write_kv(const WriteKvParams& p, void* stream);
}

}  // namespace eagle
