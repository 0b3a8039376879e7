// The launchers of attention and of the draft head as C functions for ctypes: see harness.cpp.
#include "common/decoder_layers.h"
#include "common/draft_input.h"
#include "common/draft_mlp.h"
#include "common/draft_output.h"
#include "common/draft_qkv_rope.h"
#include "common/linear.h"
#include "common/lm_head_topk.h"
#include "common/rms_norm.h"
#include "common/rope.h"
#include "common/silu_mul.h"
#include "common/tree_attention.h"
#include "launchers.h"

namespace {

using namespace eagle;

Rows rows(void* data, int64_t count, int64_t stride) { return {static_cast<char*>(data), count, 1, {count}, {stride}}; }

DType dtype(int64_t code) { return static_cast<DType>(code); }

}  // namespace

extern "C" {

const char* tree_attention(void* output, const void* query, const void* key, const void* value, const int64_t* strides,
                           const int32_t* page_ids, int64_t columns, int64_t num_pages, int64_t page_size,
                           const int32_t* context_len, const int64_t* ancestor_mask, const void* sinks, int64_t code,
                           int64_t batch, int64_t num_heads, int64_t num_kv_heads, int64_t num_rows, int64_t head_dim,
                           int64_t mask_words, int64_t window, const float* scale) {
  const auto view = [&](const void* data, int i) {
    return HeadsView{data, strides[3 * i], strides[3 * i + 1], strides[3 * i + 2]};
  };
  const PageTable pages = make_page_table(page_ids, columns, num_pages, page_size);
  const TreeAttentionParams p{
      .query = view(query, 0),
      .key = view(key, 1),
      .value = view(value, 2),
      .pages = pages,
      .context_len = context_len,
      .ancestor_mask = ancestor_mask,
      .sinks = sinks,
      .output = output,
      .dtype = dtype(code),
      .batch = batch,
      .num_heads = num_heads,
      .num_kv_heads = num_kv_heads,
      .num_rows = num_rows,
      .length = pages.length(),
      .head_dim = head_dim,
      .mask_words = mask_words,
      .window = static_cast<int>(window),
      .scale = *scale,
  };
  return run(p, cuda::tree_attention_workspace, cuda::tree_attention);
}

const char* linear(void* output, void* input, int64_t count, int64_t stride, const void* weight, const float* scale,
                   const void* bias, int64_t code, int64_t inner, int64_t outputs) {
  const LinearParams p{dtype(code), rows(input, count, stride), {weight, scale}, bias, output, inner, outputs};
  return run(p, cuda::linear_workspace, cuda::linear);
}

const char* rms_norm(void* output, void* input, int64_t count, int64_t stride, const void* weight, int64_t code,
                     int64_t size, int64_t row_bytes, const float* eps) {
  const RmsNormParams p{dtype(code), rows(input, count, stride), weight, rows(output, count, row_bytes), size, *eps};
  return guarded([&] { cuda::rms_norm(p, nullptr); });
}

const char* silu_mul(void* output, void* gate, void* up, int64_t count, int64_t stride, int64_t code, int64_t size) {
  const SiluMulParams p{dtype(code), rows(gate, count, stride), rows(up, count, stride), output, size};
  return guarded([&] { cuda::silu_mul(p, nullptr); });
}

const char* rope(void* query_output, void* key_output, void* query, void* key, void* cos, void* sin,
                 const int64_t* strides, int64_t row_bytes, int64_t code, int64_t batch, int64_t query_heads,
                 int64_t key_heads, int64_t num_rows, int64_t head_dim) {
  const auto states = [&](void* data, int64_t heads, const int64_t* stride) {
    return Rows{static_cast<char*>(data),
                batch * heads * num_rows,
                3,
                {batch, heads, num_rows},
                {stride[0], stride[1], stride[2]}};
  };
  const RopeParams p{dtype(code),
                     states(query, query_heads, strides),
                     states(key, key_heads, strides + 3),
                     query_output,
                     key_output,
                     rows(cos, batch * num_rows, row_bytes),
                     rows(sin, batch * num_rows, row_bytes),
                     batch,
                     query_heads,
                     key_heads,
                     num_rows,
                     head_dim};
  return guarded([&] { cuda::rope(p, nullptr); });
}

const char* draft_input(void* output, const int32_t* token_ids, void* hidden_states, int64_t count, int64_t stride,
                        const void* embed_weight, const void* embed_norm, const void* hidden_norm, int64_t code,
                        int64_t size, int64_t vocabulary, const float* eps) {
  const DraftInputParams p{
      dtype(code), token_ids, rows(hidden_states, count, stride), embed_weight, embed_norm, hidden_norm, output, size,
      vocabulary,  *eps};
  return guarded([&] { cuda::draft_input(p, nullptr); });
}

const char* draft_qkv_rope(void* query, void* x, int64_t stride, const void* weight, const float* scale,
                           const void* bias, const void* q_norm_weight, const void* k_norm_weight, const float* cos,
                           const float* sin, const int32_t* position_ids, void* key_cache, void* value_cache,
                           int64_t cache_stride, const int32_t* cache_rows, const int32_t* page_ids, int64_t columns,
                           int64_t num_pages, int64_t page_size, int64_t code, int64_t batch, int64_t num_rows,
                           int64_t inner, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t positions,
                           const float* norm_eps) {
  const int64_t cached = num_pages * num_kv_heads * page_size;
  const DraftQkvRopeParams p{dtype(code),
                             rows(x, batch * num_rows, stride),
                             {weight, scale},
                             bias,
                             q_norm_weight,
                             k_norm_weight,
                             cos,
                             sin,
                             position_ids,
                             cache_rows,
                             make_page_table(page_ids, columns, num_pages, page_size),
                             query,
                             rows(key_cache, cached, cache_stride),
                             rows(value_cache, cached, cache_stride),
                             batch,
                             num_rows,
                             inner,
                             num_heads,
                             num_kv_heads,
                             head_dim,
                             positions,
                             *norm_eps};
  return run(p, cuda::draft_qkv_rope_workspace, cuda::draft_qkv_rope);
}

const char* draft_output(void* hidden, void* normed, void* attention, int64_t count, int64_t stride, const void* weight,
                         const float* scale, void* residual, int64_t residual_stride, const void* norm_weight,
                         int64_t code, int64_t inner, int64_t size, const float* eps) {
  const DraftOutputParams p{dtype(code),
                            rows(attention, count, stride),
                            {weight, scale},
                            rows(residual, count, residual_stride),
                            norm_weight,
                            hidden,
                            normed,
                            inner,
                            size,
                            *eps};
  return run(p, cuda::draft_output_workspace, cuda::draft_output);
}

const char* draft_mlp(void* hidden, void* normed, int64_t count, int64_t stride, const void* gate_up,
                      const float* gate_up_scale, const void* down, const float* down_scale, void* residual,
                      int64_t residual_stride, int64_t code, int64_t size, int64_t intermediate) {
  const DraftMlpParams p{dtype(code),
                         rows(normed, count, stride),
                         {gate_up, gate_up_scale},
                         {down, down_scale},
                         rows(residual, count, residual_stride),
                         hidden,
                         size,
                         intermediate};
  return run(p, cuda::draft_mlp_workspace, cuda::draft_mlp);
}

// `layers` is the address of `num_layers` DecoderLayers, as emulated_products.py lays them out.
const char* decoder_layers(void* hidden_states, int64_t stride, const void* layers, int64_t num_layers,
                           const float* cos, const float* sin, const int32_t* position_ids, const int32_t* cache_rows,
                           const int32_t* context_len, const int64_t* ancestor_mask, const int32_t* page_ids,
                           int64_t columns, int64_t num_pages, int64_t page_size, int64_t code, int64_t batch,
                           int64_t num_rows, int64_t size, int64_t intermediate, int64_t num_heads,
                           int64_t num_kv_heads, int64_t head_dim, int64_t positions, int64_t mask_words,
                           const float* scale_eps) {
  static_assert(sizeof(DecoderLayer) == 13 * sizeof(int64_t));
  const DecoderLayersParams p{dtype(code),
                              rows(hidden_states, batch * num_rows, stride),
                              static_cast<const DecoderLayer*>(layers),
                              num_layers,
                              cos,
                              sin,
                              position_ids,
                              cache_rows,
                              context_len,
                              ancestor_mask,
                              make_page_table(page_ids, columns, num_pages, page_size),
                              batch,
                              num_rows,
                              size,
                              intermediate,
                              num_heads,
                              num_kv_heads,
                              head_dim,
                              positions,
                              mask_words,
                              scale_eps[0],
                              scale_eps[1]};
  return run(p, cuda::decoder_layers_workspace, cuda::decoder_layers);
}

const char* lm_head_topk(void* normed, float* logprobs, int32_t* token_ids, bool* valid, void* hidden_states,
                         int64_t count, int64_t stride, const void* norm_weight, const void* weight, const float* scale,
                         const int32_t* d2t, int64_t code, int64_t size, int64_t vocabulary, int64_t k,
                         const float* eps) {
  const LmHeadTopkParams p{dtype(code), rows(hidden_states, count, stride),
                           norm_weight, {weight, scale},
                           d2t,         normed,
                           logprobs,    token_ids,
                           valid,       size,
                           vocabulary,  k,
                           *eps};
  return run(p, cuda::lm_head_topk_workspace, cuda::lm_head_topk);
}

}  // extern "C"
