// Sums of a product that was split over its inner dimension.
#pragma once
#include <cstdint>

#include "cuda/element.cuh"

namespace eagle::cuda {

struct Partials {
  const float* data;  // [splits, rows, outputs], a multiple of 16 bytes
  int64_t splits, rows, outputs;

  static constexpr int kInFlight = 8;  // reads of a thread at a time

  // In the order of the splits, so that results do not depend on timing.
  __device__ float sum(int64_t row, int64_t output) const {
    const float* from = data + row * outputs + output;
    float total = 0;
    for (int64_t first = 0; first < splits; first += kInFlight) {
      float part[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) part[i] = first + i < splits ? from[(first + i) * rows * outputs] : 0;
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) total += part[i];
    }
    return total;
  }

  // The same for outputs first..first + 7; those beyond the last are unspecified.
  __device__ void sum_octet(int64_t row, int64_t first, float (&total)[kOctet]) const {
    if (outputs % kOctet != 0) {
#pragma unroll
      for (int j = 0; j < kOctet; ++j) total[j] = first + j < outputs ? sum(row, first + j) : 0;
      return;
    }
#pragma unroll
    for (int j = 0; j < kOctet; ++j) total[j] = 0;
    const float* from = data + row * outputs + first;
    for (int64_t begin = 0; begin < splits; begin += kInFlight) {
      float4 part[kInFlight][2];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          part[i][half] = begin + i < splits
                              ? reinterpret_cast<const float4*>(from + (begin + i) * rows * outputs)[half]
                              : float4{};
#pragma unroll
      for (int i = 0; i < kInFlight; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          total[half * 4] += part[i][half].x;
          total[half * 4 + 1] += part[i][half].y;
          total[half * 4 + 2] += part[i][half].z;
          total[half * 4 + 3] += part[i][half].w;
        }
    }
  }
};

}  // namespace eagle::cuda
