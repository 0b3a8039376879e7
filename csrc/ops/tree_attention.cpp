// tree_attention for torch tensors: checks, allocation and device dispatch.
#include "common/tree_attention.h"

#include <algorithm>

#include "common/tree.h"
#include "ops/match.h"
#include "ops/ops.h"
#include "ops/page_table.h"

namespace eagle::ops {
namespace {

HeadsView view(const char* name, const Tensor& t) {
  EAGLE_CHECK(t.stride(3) == 1 || t.size(3) == 1, "tree_attention: the last dimension of ", name,
              " must be contiguous; call .contiguous() on it");
  return {
      .data = t.const_data_ptr(), .batch_stride = t.stride(0), .head_stride = t.stride(1), .row_stride = t.stride(2)};
}

}  // namespace

Tensor tree_attention(const Tensor& query, const Tensor& key_cache, const Tensor& value_cache,
                      const Tensor& context_len, const Tensor& ancestor_mask, double scale,
                      const std::optional<Tensor>& page_table, std::optional<int64_t> window,
                      const std::optional<Tensor>& sinks) {
  Match m("tree_attention");
  m.tensor("query", query, "B Hq Q d", Kind::kFloating, /*strided=*/true);
  m.tensor("key_cache", key_cache, cache_shape(page_table), Kind::kFloating, /*strided=*/true);
  m.tensor("value_cache", value_cache, cache_shape(page_table), Kind::kFloating, /*strided=*/true);
  m.same_dtype("key_cache", key_cache, "query", query);
  m.same_dtype("value_cache", value_cache, "query", query);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  m.tensor("ancestor_mask", ancestor_mask, "B Q W", Kind::kInt64);
  const PageTable pages = match_page_table(m, page_table);
  const void* sink_scores = m.optional("sinks", sinks, "Hq", "query", query);
  const int64_t batch = m["B"], num_heads = m["Hq"], num_kv_heads = m["Hkv"], num_rows = m["Q"], head_dim = m["d"];
  EAGLE_CHECK(head_dim >= 1 && head_dim <= kMaxHeadDim, "tree_attention: head_dim must be between 1 and ", kMaxHeadDim,
              ", got ", head_dim);
  EAGLE_CHECK(num_kv_heads > 0 && num_heads % num_kv_heads == 0, "tree_attention: query has ", num_heads,
              " heads, which is not a multiple of the ", num_kv_heads, " heads of key_cache");
  EAGLE_CHECK(m["W"] >= 1 && m["W"] <= kMaxMaskWords, "tree_attention: ancestor_mask must have 1 or ", kMaxMaskWords,
              " words a row, got ", m["W"]);
  EAGLE_CHECK(!window || *window >= m["W"] * kMaskWordBits, "tree_attention: window must be at least ",
              m["W"] * kMaskWordBits, ", as many rows as a mask has bits, got ", window.value_or(0));
  Tensor output = empty_like_device(query, {batch, num_rows, num_heads, head_dim}, query.scalar_type());
  const TreeAttentionParams p{
      .query = view("query", query),
      .key = view("key_cache", key_cache),
      .value = view("value_cache", value_cache),
      .pages = pages,
      .context_len = context_len.const_data_ptr<int32_t>(),
      .ancestor_mask = ancestor_mask.const_data_ptr<int64_t>(),
      .sinks = sink_scores,
      .output = output.mutable_data_ptr(),
      .dtype = float_dtype(query),
      .batch = batch,
      .num_heads = num_heads,
      .num_kv_heads = num_kv_heads,
      .num_rows = num_rows,
      .length = pages.length(),
      .head_dim = head_dim,
      .mask_words = m["W"],
      .window = static_cast<int>(std::min<int64_t>(window.value_or(kNoWindow), kNoWindow)),
      .scale = static_cast<float>(scale),
  };
#ifdef EAGLE_WITH_CUDA
  if (query.is_cuda()) {
    const DeviceGuard guard(query.get_device_index());
    const Tensor scratch = workspace(query, cuda::tree_attention_workspace(p));
    cuda::tree_attention(p, scratch.mutable_data_ptr(), current_stream(query));
    return output;
  }
#endif
  cpu::tree_attention(p, torch_parallel_for());
  return output;
}

}  // namespace eagle::ops
