// gumbel_noise: the keyed noise that sampling adds to the logits.
#pragma once
#include <cstdint>

#include "common/parallel.h"
#include "common/philox.h"

namespace eagle {

struct GumbelNoiseParams {
  float* noise;                 // [batch, rows, num_tokens]
  const int64_t* seed;          // [batch]
  const int32_t* position_ids;  // [batch, rows]
  int64_t batch, rows, num_tokens;
  Stream stream;
};

namespace cpu {
void gumbel_noise(const GumbelNoiseParams& p, ParallelFor parallel_for);
}
namespace cuda {
void gumbel_noise(const GumbelNoiseParams& p, void* stream);
}

}  // namespace eagle
