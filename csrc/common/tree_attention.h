// tree_attention: rows of a draft tree over the committed cache and over their ancestors.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/page_table.h"
#include "common/parallel.h"

namespace eagle {

// [batch or pages, heads, rows, head_dim]; strides in elements, rows contiguous.
struct HeadsView {
  const void* data;
  int64_t batch_stride, head_stride, row_stride;
};

struct TreeAttentionParams {
  HeadsView query;       // [batch, num_heads, num_rows, head_dim]
  HeadsView key, value;  // [pages.num_pages, num_kv_heads, pages.page_size, head_dim]
  PageTable pages;
  const int32_t* context_len;    // [batch]
  const int64_t* ancestor_mask;  // [batch, num_rows, mask_words]
  const void* sinks;             // [num_heads], or null
  void* output;                  // [batch, num_rows, num_heads, head_dim]
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, num_rows, length, head_dim, mask_words;
  int window;  // how many keys a row sees at most, the last ones; no fewer than a mask has bits
  float scale;
};

constexpr int kNoWindow = INT32_MAX;
constexpr int kMaxHeadDim = 256;

namespace cpu {
void tree_attention(const TreeAttentionParams& p, ParallelFor parallel_for);
}
namespace cuda {
int64_t tree_attention_workspace(const TreeAttentionParams& p);  // bytes
void tree_attention(const TreeAttentionParams& p, void* workspace, void* stream);
}  // namespace cuda

}  // namespace eagle
