// Sums of a product that was split over its inner dimension.
#pragma once
#include <cstdint>

namespace eagle::cuda {

struct Partials {
  const float* data;  // [splits, rows, outputs]
  int64_t splits, rows, outputs;

  // In the order of the splits, so that results do not depend on timing.
  __device__ float sum(int64_t row, int64_t output) const {
    const float* from = data + row * outputs + output;
    float total = 0;
#pragma unroll 4
    for (int64_t split = 0; split < splits; ++split) total += from[split * rows * outputs];
    return total;
  }
};

}  // namespace eagle::cuda
