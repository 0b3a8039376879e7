// A cache tensor as kernels that copy rows see it.
#pragma once
#include "common/compact_kv.h"
#include "ops/torch.h"

namespace eagle::ops {

inline KvCacheView cache_view(const Tensor& cache) {
  const int64_t item = cache.element_size();
  return {
      .data = static_cast<char*>(cache.mutable_data_ptr()),
      .num_heads = cache.size(1),
      .length = cache.size(2),
      .row_bytes = cache.size(3) * item,
      .batch_stride = cache.stride(0) * item,
      .head_stride = cache.stride(1) * item,
      .row_stride = cache.stride(2) * item,
  };
}

}  // namespace eagle::ops
