// write_kv for torch tensors: checks and device dispatch.
#include "common/write_kv.h"

#include "ops/cache_view.h"
#include "ops/match.h"
#include "ops/ops.h"
#include "ops/page_table.h"
#include "ops/range.h"

namespace eagle::ops {
namespace {

KvStatesView view(const Tensor& states) {
  const int64_t item = states.element_size();
  return {
      .data = static_cast<const char*>(states.const_data_ptr()),
      .batch_stride = states.stride(0) * item,
      .head_stride = states.stride(1) * item,
      .row_stride = states.stride(2) * item,
  };
}

}  // namespace

void write_kv(const Tensor& key_states, const Tensor& value_states, const Tensor& key_cache, const Tensor& value_cache,
              const Tensor& cache_rows, const std::optional<Tensor>& page_table) {
  Match m("write_kv");
  const auto match = [&](const char* name, const Tensor& t, const char* shape) {
    m.tensor(name, t, shape, Kind::kFloating, /*strided=*/true);
    m.same_dtype(name, t, "key_states", key_states);
    EAGLE_CHECK(t.stride(3) == 1 || t.size(3) <= 1, "write_kv: the last dimension of ", name,
                " must be contiguous; call .contiguous() on it");
  };
  match("key_states", key_states, "B Hkv Q d");
  match("value_states", value_states, "B Hkv Q d");
  match("key_cache", key_cache, cache_shape(page_table));
  match("value_cache", value_cache, cache_shape(page_table));
  m.tensor("cache_rows", cache_rows, "B Q", Kind::kInt32);
  const PageTable pages = match_page_table(m, page_table);
  check_range("write_kv", "cache_rows", cache_rows, -1, pages.length());
  const WriteKvParams p{
      .states = {view(key_states), view(value_states)},
      .caches = {cache_view(key_cache), cache_view(value_cache)},
      .pages = pages,
      .cache_rows = cache_rows.const_data_ptr<int32_t>(),
      .batch = m["B"],
      .rows = m["Q"],
  };
#ifdef EAGLE_WITH_CUDA
  if (key_states.is_cuda()) {
    const DeviceGuard guard(key_states.get_device_index());
    return cuda::write_kv(p, current_stream(key_states));
  }
#endif
  cpu::write_kv(p, torch_parallel_for());
}

}  // namespace eagle::ops
