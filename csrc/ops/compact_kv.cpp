// compact_kv for torch tensors: checks and device dispatch.
#include "common/compact_kv.h"

#include "ops/cache_view.h"
#include "ops/match.h"
#include "ops/ops.h"
#include "ops/page_table.h"

namespace eagle::ops {
namespace {

// Contiguous caches may differ in length, and each knows its own.
PageTable match_pages(Match& m, const std::vector<Tensor>& caches, const std::optional<Tensor>& page_table) {
  if (!page_table) return contiguous_pages(m["B"], kMaxPosition);
  m.tensor("page_table", *page_table, "B C", Kind::kInt32);
  const Tensor& first = caches.front();
  for (const Tensor& cache : caches)
    EAGLE_CHECK(cache.size(0) == first.size(0) && cache.size(2) == first.size(2),
                "compact_kv: caches must agree in num_pages and page_size, got ", first.size(0), " pages of ",
                first.size(2), " rows and ", cache.size(0), " pages of ", cache.size(2),
                "; pass them in calls of their own");
  return make_page_table(page_table->const_data_ptr<int32_t>(), m["C"], first.size(0), first.size(2));
}

}  // namespace

void compact_kv(std::vector<Tensor> caches, const Tensor& accept_index, const Tensor& accept_length,
                const Tensor& context_len, const std::optional<Tensor>& page_table) {
  Match m("compact_kv");
  m.tensor("accept_index", accept_index, "B P", Kind::kInt32);
  m.tensor("accept_length", accept_length, "B", Kind::kInt32);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  std::vector<KvCacheView> views;
  for (const Tensor& cache : caches) {
    Match(m).tensor("caches", cache, page_table ? "N H S D" : "B H L D", Kind::kFloating, /*strided=*/true);
    EAGLE_CHECK(cache.stride(3) == 1, "compact_kv: the last dimension of each cache must be contiguous");
    views.push_back(cache_view(cache));
  }
  if (views.empty()) return;
  const CompactKvParams p{
      .caches = views.data(),
      .accept_index = accept_index.const_data_ptr<int32_t>(),
      .accept_length = accept_length.const_data_ptr<int32_t>(),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .pages = match_pages(m, caches, page_table),
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
