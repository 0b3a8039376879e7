// Bounds of index tensors, checked where that costs no synchronisation.
#pragma once
#include "ops/torch.h"

namespace eagle::ops {

// Raises unless low <= index < high for every index of a contiguous int32 tensor on the CPU.
inline void check_range(const char* op, const char* name, const Tensor& indices, int64_t low, int64_t high) {
  if (indices.is_cuda()) return;
  const int32_t* index = indices.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < indices.numel(); ++i)
    EAGLE_CHECK(index[i] >= low && index[i] < high, op, ": ", name, " holds ", index[i], ", expected ", low,
                " <= index < ", high);
}

}  // namespace eagle::ops
