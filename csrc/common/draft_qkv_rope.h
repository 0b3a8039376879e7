// draft_qkv_rope: QKV projection, norms of heads, rotary embedding and cache write of a draft layer.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/page_table.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle {

struct DraftQkvRopeParams {
  DType dtype;
  Rows x;                       // [batch, rows, inner]
  Weight qkv_weight;            // [(num_heads + 2 * num_kv_heads) * head_dim, inner]
  const void* qkv_bias;         // [(num_heads + 2 * num_kv_heads) * head_dim] or null
  const void* q_norm_weight;    // [head_dim] or null
  const void* k_norm_weight;    // [head_dim], null with q_norm_weight
  const float* rope_cos;        // [positions, head_dim / 2]
  const float* rope_sin;        // [positions, head_dim / 2]
  const int32_t* position_ids;  // [batch, rows]
  const int32_t* cache_rows;    // [batch, rows], -1: do not write
  PageTable pages;
  void* query;                  // [batch, num_heads, rows, head_dim]
  Rows key_cache, value_cache;  // [pages.num_pages, num_kv_heads, pages.page_size, head_dim]
  int64_t batch, rows, inner, num_heads, num_kv_heads, head_dim, positions;
  float norm_eps;
};

namespace cpu {
void draft_qkv_rope(const DraftQkvRopeParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t draft_qkv_rope_workspace(const DraftQkvRopeParams& p);  // bytes
void draft_qkv_rope(const DraftQkvRopeParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
