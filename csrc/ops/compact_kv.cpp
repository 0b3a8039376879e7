// compact_kv for torch tensors: checks and device dispatch.
#include "common/compact_kv.h"

#include "ops/match.h"
#include "ops/ops.h"

namespace eagle::ops {
namespace {

KvCacheView view(const Tensor& cache) {
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

}  // namespace

void compact_kv(std::vector<Tensor> caches, const Tensor& accept_index, const Tensor& accept_length,
                const Tensor& context_len) {
  Match m("compact_kv");
  m.tensor("accept_index", accept_index, "B P", Kind::kInt32);
  m.tensor("accept_length", accept_length, "B", Kind::kInt32);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  std::vector<KvCacheView> views;
  for (const Tensor& cache : caches) {
    Match(m).tensor("caches", cache, "B H L D", Kind::kFloating, /*strided=*/true);
    EAGLE_CHECK(cache.stride(3) == 1, "compact_kv: the last dimension of each cache must be contiguous");
    views.push_back(view(cache));
  }
  const CompactKvParams p{
      .caches = views.data(),
      .accept_index = accept_index.const_data_ptr<int32_t>(),
      .accept_length = accept_length.const_data_ptr<int32_t>(),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .num_caches = static_cast<int64_t>(views.size()),
      .batch = m["B"],
      .path_length = m["P"],
  };
#ifdef EAGLE_WITH_CUDA
  if (accept_index.is_cuda()) {
    const DeviceGuard guard(accept_index.get_device_index());
    return cuda::compact_kv(p, current_stream(accept_index));
  }
#endif
  cpu::compact_kv(p, torch_parallel_for());
}

}  // namespace eagle::ops
