// rope: rotary position embedding of queries and keys.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace eagle {

struct RopeParams {
  DType dtype;
  Rows query, key;                  // [batch, heads, rows, head_dim]
  void *query_output, *key_output;  // the same, contiguous
  Rows cos, sin;                    // [batch, rows, head_dim]
  int64_t batch, query_heads, key_heads, rows, head_dim;
};

namespace cpu {
void rope(const RopeParams& p, ParallelFor parallel_for);
}
namespace cuda {
void rope(const RopeParams& p, void* stream);
}

}  // namespace eagle
