// A tensor seen as rows: any number of leading dimensions with free strides, the last one contiguous.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace eagle {

struct Rows {
  static constexpr int kMaxDims = 4;
  char* data;
  int64_t count;             // rows in all
  int dims;                  // leading dimensions, neighbours merged where the strides allow
  int64_t size[kMaxDims];    // of each leading dimension
  int64_t stride[kMaxDims];  // in bytes

  EAGLE_HOST_DEVICE char* operator[](int64_t row) const {
    char* p = data;
    for (int d = dims - 1; d > 0; --d) {
      p += row % size[d] * stride[d];
      row /= size[d];
    }
    return p + row * stride[0];
  }
};

inline Rows contiguous_rows(void* data, int64_t count, int64_t row_bytes) {
  return {static_cast<char*>(data), count, 1, {count}, {row_bytes}};
}

}  // namespace eagle
