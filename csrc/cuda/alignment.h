// Whether memory can be read 16 bytes at a time.
#pragma once
#include <cstdint>

#include "common/rows.h"

namespace eagle::cuda {

inline bool aligned16(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

inline bool aligned16(const Rows& rows) {
  for (int d = 0; d < rows.dims; ++d)
    if (rows.size[d] > 1 && rows.stride[d] % 16 != 0) return false;
  return aligned16(static_cast<const void*>(rows.data));
}

}  // namespace eagle::cuda
