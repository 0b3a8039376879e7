// draft_qkv_rope: QKV projection, rotary embedding and cache write of a draft layer.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle {

struct DraftQkvRopeParams {
  DType dtype;
  Rows x;                       // [batch, rows, inner]
  Weight qkv_weight;            // [(num_heads + 2 * num_kv_heads) * head_dim, inner]
  const void* qkv_bias;         // [(num_heads + 2 * num_kv_heads) * head_dim] or null
  const float* rope_cos;        // [positions, head_dim / 2]
  const float* rope_sin;        // [positions, head_dim / 2]
  const int32_t* position_ids;  // [batch, rows]
  const int32_t* cache_rows;    // [batch, rows], -1: do not write
  void* query;                  // [batch, num_heads, rows, head_dim]
  Rows key_cache, value_cache;  // [batch, num_kv_heads, length, head_dim]
  int64_t batch, rows, inner, num_heads, num_kv_heads, head_dim, length, positions;
};

namespace cpu {
void draft_qkv_rope(const DraftQkvRopeParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t draft_qkv_rope_workspace(const DraftQkvRopeParams& p);  // bytes
void draft_qkv_rope(const DraftQkvRopeParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
