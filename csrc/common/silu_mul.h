// silu_mul: the gate of a SwiGLU layer.
#pragma once
#include <cstdint>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"

namespace eagle {

struct SiluMulParams {
  DType dtype;
  Rows gate, up;  // [rows, size]
  void* output;   // [rows, size]
  int64_t size;
};

namespace cpu {
void silu_mul(const SiluMulParams& p, ParallelFor parallel_for);
}
namespace cuda {
void silu_mul(const SiluMulParams& p, void* stream);
}

}  // namespace eagle
