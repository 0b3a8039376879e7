// Rows of a torch tensor: leading dimensions with whatever strides they have.
#pragma once
#include <vector>

#include "common/rows.h"
#include "ops/torch.h"

namespace eagle::ops {

inline Rows rows_of(const char* op, const char* name, const Tensor& t) {
  const int64_t last = t.dim() - 1, item = t.element_size();
  EAGLE_CHECK(last >= 0 && (t.stride(last) == 1 || t.size(last) <= 1), op, ": the last dimension of ", name,
              " must be contiguous; call .contiguous() on it");
  Rows rows{static_cast<char*>(const_cast<void*>(t.const_data_ptr())), 1, 1, {1}, {0}};
  for (int64_t d = 0; d < last; ++d) {
    const int64_t size = t.size(d), stride = t.stride(d) * item;
    rows.count *= size;
    int64_t& previous = rows.stride[rows.dims - 1];
    if (size == 1) continue;
    if (rows.size[rows.dims - 1] == 1) {
      rows.size[rows.dims - 1] = size;
      previous = stride;
    } else if (previous == size * stride) {
      rows.size[rows.dims - 1] *= size;
      previous = stride;
    } else {
      EAGLE_CHECK(rows.dims < Rows::kMaxDims, op, ": ", name, " has too many strided dimensions; call .contiguous()");
      rows.size[rows.dims] = size;
      rows.stride[rows.dims++] = stride;
    }
  }
  return rows;
}

// A contiguous tensor with the leading dimensions of `t` and `last` elements a row.
inline Tensor empty_with_last(const Tensor& t, int64_t last) {
  std::vector<int64_t> shape(t.sizes().begin(), t.sizes().end());
  shape.back() = last;
  return empty_like_device(t, shape, t.scalar_type());
}

}  // namespace eagle::ops
