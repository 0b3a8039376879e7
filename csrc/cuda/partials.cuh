// Sums of a product that was split over its inner dimension.
#pragma once
#include <cstdint>

#include "cuda/element.cuh"

namespace eagle::cuda {

struct Partials {
  const float* data;  // [splits, rows, outputs], a multiple of 16 bytes
  int64_t splits, rows, outputs;

  static constexpr int kInFlight = 8;  // splits of which a thread reads at a time

  // The sums of a row that begin at each of `first`; of an octet, those beyond the last output are unspecified. `first`
  // are any outputs for Value = float; for Octet<float> they are multiples of kOctet, from the row's beginning or its
  // middle. Added in the order of the splits, so that results do not depend on timing.
  template <class Value, int kCount>
  __device__ void sum(int64_t row, const int64_t (&first)[kCount], Value (&total)[kCount]) const {
    const int64_t step = rows * outputs;
    const float* from[kCount];
#pragma unroll
    for (int c = 0; c < kCount; ++c) from[c] = data + row * outputs + first[c], total[c] = {};
    for (int left = static_cast<int>(splits); left > 0; left -= kInFlight) {
      Value part[kInFlight][kCount];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (i == left) break;
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          read(from[c], outputs - first[c], part[i][c]);
          from[c] += step;
        }
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (i == left) break;
#pragma unroll
        for (int c = 0; c < kCount; ++c) add(total[c], part[i][c]);
      }
    }
  }

 private:
  __device__ void read(const float* from, int64_t, float& value) const { value = *from; }
  __device__ void read(const float* from, int64_t size, Octet<float>& value) const {
    value = load_octet(Row<float>{from, size, outputs % kOctet == 0}, 0);
  }

  static __device__ void add(float& total, float value) { total += value; }
  static __device__ void add(Octet<float>& total, const Octet<float>& value) {
#pragma unroll
    for (int j = 0; j < kOctet; ++j) total.value[j] += value.value[j];
  }
};

}  // namespace eagle::cuda
