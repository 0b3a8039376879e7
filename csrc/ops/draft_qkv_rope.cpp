// draft_qkv_rope for torch tensors: checks and device dispatch.
#include "common/draft_qkv_rope.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/page_table.h"
#include "ops/range.h"
#include "ops/rows.h"

namespace eagle::ops {

Tensor draft_qkv_rope(const Tensor& x, const Tensor& qkv_weight, const std::optional<Tensor>& qkv_bias,
                      const Tensor& rope_cos, const Tensor& rope_sin, const Tensor& position_ids,
                      const Tensor& key_cache, const Tensor& value_cache, const Tensor& cache_rows, int64_t num_heads,
                      const std::optional<Tensor>& qkv_scale, const std::optional<Tensor>& page_table,
                      const std::optional<Tensor>& q_norm_weight, const std::optional<Tensor>& k_norm_weight,
                      double norm_eps) {
  Match m("draft_qkv_rope");
  m.tensor("x", x, "B Q A", Kind::kFloating, /*strided=*/true);
  const Weight projection = m.weight("qkv_weight", qkv_weight, "O A", "qkv_scale", qkv_scale, "O", "x", x);
  m.tensor("position_ids", position_ids, "B Q", Kind::kInt32);
  m.tensor("key_cache", key_cache, cache_shape(page_table), Kind::kFloating, /*strided=*/true);
  m.tensor("value_cache", value_cache, cache_shape(page_table), Kind::kFloating, /*strided=*/true);
  m.tensor("cache_rows", cache_rows, "B Q", Kind::kInt32);
  const PageTable pages = match_page_table(m, page_table);
  m.tensor("rope_cos", rope_cos, "P d/2", Kind::kFloat32);
  m.tensor("rope_sin", rope_sin, "P d/2", Kind::kFloat32);
  m.same_dtype("key_cache", key_cache, "x", x);
  m.same_dtype("value_cache", value_cache, "x", x);
  const void* bias = m.optional("qkv_bias", qkv_bias, "O", "x", x);
  EAGLE_CHECK(q_norm_weight.has_value() == k_norm_weight.has_value(),
              "draft_qkv_rope: ", q_norm_weight ? "q_norm_weight" : "k_norm_weight", " was given without ",
              q_norm_weight ? "k_norm_weight" : "q_norm_weight", "; give both or neither");
  const void* q_norm = m.optional("q_norm_weight", q_norm_weight, "d", "x", x);
  const void* k_norm = m.optional("k_norm_weight", k_norm_weight, "d", "x", x);
  EAGLE_CHECK(m["d"] == 2 * m["d/2"], "draft_qkv_rope: head_dim is ", m["d"], " but rope_cos has ", m["d/2"],
              " columns, half of head_dim is needed");
  EAGLE_CHECK(num_heads > 0 && m["O"] == (num_heads + 2 * m["Hkv"]) * m["d"], "draft_qkv_rope: qkv_weight has ", m["O"],
              " rows, expected (num_heads + 2 * num_kv_heads) * head_dim with num_heads = ", num_heads,
              ", num_kv_heads = ", m["Hkv"], ", head_dim = ", m["d"]);
  check_range("draft_qkv_rope", "position_ids", position_ids, 0, m["P"]);
  check_range("draft_qkv_rope", "cache_rows", cache_rows, -1, pages.length());
  Tensor query = empty_like_device(x, {m["B"], num_heads, m["Q"], m["d"]}, x.scalar_type());
  const DraftQkvRopeParams p{
      .dtype = float_dtype(x),
      .x = rows_of("draft_qkv_rope", "x", x),
      .qkv_weight = projection,
      .qkv_bias = bias,
      .q_norm_weight = q_norm,
      .k_norm_weight = k_norm,
      .rope_cos = rope_cos.const_data_ptr<float>(),
      .rope_sin = rope_sin.const_data_ptr<float>(),
      .position_ids = position_ids.const_data_ptr<int32_t>(),
      .cache_rows = cache_rows.const_data_ptr<int32_t>(),
      .pages = pages,
      .query = query.mutable_data_ptr(),
      .key_cache = rows_of("draft_qkv_rope", "key_cache", key_cache),
      .value_cache = rows_of("draft_qkv_rope", "value_cache", value_cache),
      .batch = m["B"],
      .rows = m["Q"],
      .inner = m["A"],
      .num_heads = num_heads,
      .num_kv_heads = m["Hkv"],
      .head_dim = m["d"],
      .positions = m["P"],
      .norm_eps = static_cast<float>(norm_eps),
  };
#ifdef EAGLE_WITH_CUDA
  if (x.is_cuda()) {
    const DeviceGuard guard(x.get_device_index());
    const Tensor scratch = workspace(x, cuda::draft_qkv_rope_workspace(p));
    cuda::draft_qkv_rope(p, scratch.mutable_data_ptr(), current_stream(x));
    return query;
  }
#endif
  cpu::draft_qkv_rope(p, torch_parallel_for());
  return query;
}

}  // namespace eagle::ops
