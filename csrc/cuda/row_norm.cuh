// Root mean square normalisation of one row by one block, rounded as transformers' LlamaRMSNorm.
#pragma once
#include "cuda/convert.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr int kNormThreads = 256;

template <class T, int kWidth>
__device__ void normalise_packs(const T* row, const T* weight, int64_t size, float eps, T* to) {
  float squares = 0;
  for (int64_t i = threadIdx.x * kWidth; i < size; i += blockDim.x * kWidth) {
    const auto x = load_pack<T, kWidth>(row + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) squares += to_float(x.value[j]) * to_float(x.value[j]);
  }
  const float factor = rsqrtf(block_reduce(squares, 0.0f, Sum()) / static_cast<float>(size) + eps);
  for (int64_t i = threadIdx.x * kWidth; i < size; i += blockDim.x * kWidth) {
    const auto x = load_pack<T, kWidth>(row + i), w = load_pack<T, kWidth>(weight + i);
    Pack<T, kWidth> y;
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      y.value[j] = from_float<T>(to_float(w.value[j]) * rounded<T>(to_float(x.value[j]) * factor));
    store_pack(to + i, y);
  }
}

// to = weight * round(row / sqrt(mean(row^2) + eps)). Each thread reads and writes its own elements only.
template <class T>
__device__ void normalise_row(const T* row, const T* weight, int64_t size, float eps, T* to) {
  constexpr int kWidth = kFullWidth<T>;
  const uintptr_t addresses =
      reinterpret_cast<uintptr_t>(row) | reinterpret_cast<uintptr_t>(weight) | reinterpret_cast<uintptr_t>(to);
  if (addresses % 16 == 0 && size % kWidth == 0)
    normalise_packs<T, kWidth>(row, weight, size, eps, to);
  else
    normalise_packs<T, 1>(row, weight, size, eps, to);
}

}  // namespace eagle::cuda
