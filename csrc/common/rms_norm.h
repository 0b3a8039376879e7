// rms_norm: root mean square normalisation of rows.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace eagle {

struct RmsNormParams {
  DType dtype;
  Rows input;          // [rows, size]
  const void* weight;  // [size]
  Rows output;         // [rows, size]
  int64_t size;
  float eps;
};

namespace cpu {
void rms_norm(const RmsNormParams& p, ParallelFor parallel_for);
}
namespace cuda {
void rms_norm(const RmsNormParams& p, void* stream);
}

}  // namespace eagle
