// Root mean square normalisation of one row by one block, rounded as transformers' LlamaRMSNorm.
#pragma once
#include "cuda/convert.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr int kNormThreads = 256;

// to = weight * round(row / sqrt(mean(row^2) + eps)). Each thread reads and writes its own octets only, and the order
// of the sum does not depend on where rows lie.
template <class T>
__device__ void normalise_row(const T* row, const T* weight, int64_t size, float eps, T* to) {
  const Row<T> from = row_at<T>(row, 0, size), scale = row_at<T>(weight, 0, size);
  const bool aligned = reinterpret_cast<uintptr_t>(to) % sizeof(uint4) == 0;
  const int64_t begin = threadIdx.x * kOctet, step = blockDim.x * kOctet;
  float squares = 0;
  for (int64_t i = begin; i < size; i += step) {
    const Octet<T> x = load_octet(from, i);
#pragma unroll
    for (int j = 0; j < kOctet; ++j)
      if (i + j < size) squares += to_float(x.value[j]) * to_float(x.value[j]);
  }
  const float factor = rsqrtf(block_reduce(squares, 0.0f, Sum()) / static_cast<float>(size) + eps);
  for (int64_t i = begin; i < size; i += step) {
    const Octet<T> x = load_octet(from, i), w = load_octet(scale, i);
    Octet<T> y;
#pragma unroll
    for (int j = 0; j < kOctet; ++j)
      y.value[j] = from_float<T>(to_float(w.value[j]) * rounded<T>(to_float(x.value[j]) * factor));
    store_octet(to, size, aligned, i, y);
  }
}

}  // namespace eagle::cuda
