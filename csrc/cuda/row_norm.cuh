// Root mean square normalisation of one row by one block, rounded as transformers' LlamaRMSNorm.
#pragma once
#include "cuda/convert.cuh"
#include "cuda/dependent.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr int kNormThreads = 256;
constexpr int kNormOctets = 4;  // of a thread, that stay in registers: rows of up to 8,192 elements

// Asks for a norm's weight while earlier kernels end.
template <class T>
__device__ void prefetch_row(const T* weight, int64_t size) {
  constexpr int kLine = kLineBytes / sizeof(T);
  for (int64_t i = threadIdx.x * kLine; i < size; i += kNormThreads * kLine) prefetch_line(weight + i);
}

// to = weight * round(row / sqrt(mean(row^2) + eps)), where load(i) returns elements i..i + 7 of the row, those beyond
// its end unspecified; of longer rows it is called twice. Each thread loads and writes its own octets only, and the
// order of the sum does not depend on where rows lie.
template <class T, class Load>
__device__ void normalise_loaded(const Load& load, const T* weight, int64_t size, float eps, T* to) {
  constexpr int64_t kStep = kNormThreads * kOctet, kKept = kNormOctets * kStep;
  const Row<T> scale = row_at<T>(weight, 0, size);
  const bool aligned = reinterpret_cast<uintptr_t>(to) % sizeof(uint4) == 0;
  const int64_t begin = threadIdx.x * kOctet;
  Octet<T> kept[kNormOctets], scales[kNormOctets];
#pragma unroll
  for (int n = 0; n < kNormOctets; ++n) {
    const int64_t i = begin + n * kStep;
    if (i >= size) continue;
    scales[n] = load_octet(scale, i);
    kept[n] = load(i);
  }

  float squares = 0;
  const auto add_squares = [&](int64_t i, const Octet<T>& x) {
#pragma unroll
    for (int j = 0; j < kOctet; ++j)
      if (i + j < size) squares += to_float(x.value[j]) * to_float(x.value[j]);
  };
#pragma unroll
  for (int n = 0; n < kNormOctets; ++n) add_squares(begin + n * kStep, kept[n]);
  for (int64_t i = begin + kKept; i < size; i += kStep) add_squares(i, load(i));
  const float factor = rsqrtf(block_reduce(squares, 0.0f, Sum()) / static_cast<float>(size) + eps);

  const auto store = [&](int64_t i, const Octet<T>& x, const Octet<T>& w) {
    Octet<T> y;
#pragma unroll
    for (int j = 0; j < kOctet; ++j)
      y.value[j] = from_float<T>(to_float(w.value[j]) * rounded<T>(to_float(x.value[j]) * factor));
    store_octet(to, size, aligned, i, y);
  };
#pragma unroll
  for (int n = 0; n < kNormOctets; ++n) store(begin + n * kStep, kept[n], scales[n]);
  for (int64_t i = begin + kKept; i < size; i += kStep) store(i, load(i), load_octet(scale, i));
}

template <class T>
__device__ void normalise_row(const T* row, const T* weight, int64_t size, float eps, T* to) {
  const Row<T> from = row_at<T>(row, 0, size);
  normalise_loaded([&](int64_t i) { return load_octet(from, i); }, weight, size, eps, to);
}

}  // namespace eagle::cuda
