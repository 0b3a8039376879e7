// decoder_layers: the decoder layers of a model over the rows of a tree, as steps that the ops of one layer take.
#pragma once
#include <cstdint>

#include "common/draft_mlp.h"
#include "common/draft_output.h"
#include "common/draft_qkv_rope.h"
#include "common/rms_norm.h"
#include "common/tree_attention.h"

namespace eagle {

struct DecoderLayer {
  const void* norm_weight;      // [size]
  const void* qkv_weight;       // [(num_heads + 2 * num_kv_heads) * head_dim, size]
  const void* qkv_bias;         // [(num_heads + 2 * num_kv_heads) * head_dim] or null
  const void* q_norm_weight;    // [head_dim] or null
  const void* k_norm_weight;    // [head_dim], null with q_norm_weight
  const void* o_weight;         // [size, num_heads * head_dim]
  const void* mlp_norm_weight;  // [size]
  const void* gate_up_weight;   // [2 * intermediate, size], gate rows first
  const void* down_weight;      // [size, intermediate]
  void* key_cache;              // [pages.num_pages, num_kv_heads, pages.page_size, head_dim]
  void* value_cache;            // likewise
  int window;                   // how many keys a row sees at most
  void* hidden;                 // [rows, size], the residual stream that leaves the layer
};

struct DecoderLayersParams {
  DType dtype;
  Rows hidden_states;  // [rows, size], the residual stream that enters the first layer
  const DecoderLayer* layers;
  int64_t num_layers;
  const float* rope_cos;         // [positions, head_dim / 2]
  const float* rope_sin;         // [positions, head_dim / 2]
  const int32_t* position_ids;   // [batch, rows]
  const int32_t* cache_rows;     // [batch, rows], -1: do not write
  const int32_t* context_len;    // [batch]
  const int64_t* ancestor_mask;  // [batch, rows, mask_words]
  PageTable pages;
  int64_t batch, rows, size, intermediate, num_heads, num_kv_heads, head_dim, positions, mask_words;
  float scale, eps;
};

// What the ops of one layer are given.
struct DecoderSteps {
  RmsNormParams norm;
  DraftQkvRopeParams qkv_rope;
  TreeAttentionParams attention;
  DraftOutputParams output;
  DraftMlpParams mlp;
};

// What lies between a layer's steps, in memory that every layer uses again: normed rows and the residual stream behind
// attention, [rows, size] each; queries and what they found, [rows, num_heads * head_dim] each.
struct DecoderScratch {
  static constexpr int64_t kAlignment = 256;
  static constexpr int64_t kParts = 4;

  static int64_t part_bytes(const DecoderLayersParams& p) {
    const int64_t width = p.size > p.num_heads * p.head_dim ? p.size : p.num_heads * p.head_dim;
    return (p.batch * p.rows * width * size_of(p.dtype) + kAlignment - 1) / kAlignment * kAlignment;
  }
  static int64_t bytes(const DecoderLayersParams& p) { return kParts * part_bytes(p); }

  DecoderScratch(const DecoderLayersParams& p, void* memory) {
    const auto part = [&](int64_t index) { return static_cast<char*>(memory) + index * part_bytes(p); };
    normed = part(0), stream = part(1), query = part(2), found = part(3);
  }

  void *normed, *stream, *query, *found;
};

inline DecoderSteps decoder_steps(const DecoderLayersParams& p, int64_t index, const DecoderScratch& scratch) {
  const DecoderLayer& layer = p.layers[index];
  const int64_t count = p.batch * p.rows, width = p.num_heads * p.head_dim, item = size_of(p.dtype);
  const int64_t cached = p.pages.num_pages * p.num_kv_heads * p.pages.page_size, head_bytes = p.head_dim * item;
  const int64_t head_stride = p.pages.page_size * p.head_dim, page_stride = p.num_kv_heads * head_stride;
  const Rows entering =
      index == 0 ? p.hidden_states : contiguous_rows(p.layers[index - 1].hidden, count, p.size * item);
  const Rows normed = contiguous_rows(scratch.normed, count, p.size * item);
  return {
      .norm = {.dtype = p.dtype,
               .input = entering,
               .weight = layer.norm_weight,
               .output = normed,
               .size = p.size,
               .eps = p.eps},
      .qkv_rope = {.dtype = p.dtype,
                   .x = normed,
                   .qkv_weight = {layer.qkv_weight, nullptr},
                   .qkv_bias = layer.qkv_bias,
                   .q_norm_weight = layer.q_norm_weight,
                   .k_norm_weight = layer.k_norm_weight,
                   .rope_cos = p.rope_cos,
                   .rope_sin = p.rope_sin,
                   .position_ids = p.position_ids,
                   .cache_rows = p.cache_rows,
                   .pages = p.pages,
                   .query = scratch.query,
                   .key_cache = contiguous_rows(layer.key_cache, cached, head_bytes),
                   .value_cache = contiguous_rows(layer.value_cache, cached, head_bytes),
                   .batch = p.batch,
                   .rows = p.rows,
                   .inner = p.size,
                   .num_heads = p.num_heads,
                   .num_kv_heads = p.num_kv_heads,
                   .head_dim = p.head_dim,
                   .positions = p.positions,
                   .norm_eps = p.eps},
      .attention = {.query = {scratch.query, width * p.rows, p.rows * p.head_dim, p.head_dim},
                    .key = {layer.key_cache, page_stride, head_stride, p.head_dim},
                    .value = {layer.value_cache, page_stride, head_stride, p.head_dim},
                    .pages = p.pages,
                    .context_len = p.context_len,
                    .ancestor_mask = p.ancestor_mask,
                    .sinks = nullptr,
                    .output = scratch.found,
                    .dtype = p.dtype,
                    .batch = p.batch,
                    .num_heads = p.num_heads,
                    .num_kv_heads = p.num_kv_heads,
                    .num_rows = p.rows,
                    .length = p.pages.length(),
                    .head_dim = p.head_dim,
                    .mask_words = p.mask_words,
                    .window = layer.window,
                    .scale = p.scale},
      .output = {.dtype = p.dtype,
                 .attention = contiguous_rows(scratch.found, count, width * item),
                 .o_weight = {layer.o_weight, nullptr},
                 .residual = entering,
                 .norm_weight = layer.mlp_norm_weight,
                 .hidden = scratch.stream,
                 .normed = scratch.normed,
                 .inner = width,
                 .size = p.size,
                 .eps = p.eps},
      .mlp = {.dtype = p.dtype,
              .normed = normed,
              .gate_up_weight = {layer.gate_up_weight, nullptr},
              .down_weight = {layer.down_weight, nullptr},
              .residual = contiguous_rows(scratch.stream, count, p.size * item),
              .hidden = layer.hidden,
              .size = p.size,
              .intermediate = p.intermediate},
  };
}

namespace cpu {
void decoder_layers(const DecoderLayersParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t decoder_layers_workspace(const DecoderLayersParams& p);  // bytes
void decoder_layers(const DecoderLayersParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
