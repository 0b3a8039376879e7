// Values on their way out of a kernel: computed in float, rounded once, stored eight at a time.
#pragma once
#include <type_traits>

#include "cuda/element.cuh"

namespace eagle::cuda {

template <class T>
__device__ T from_float(float x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    static_assert(std::is_same_v<T, float>);
    return x;
  }
}

// x as T holds it.
template <class T>
__device__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

// Two values side by side in one register, the first in the low half.
template <class T>
__device__ uint32_t pack2(float low, float high) {
  static_assert(sizeof(T) == 2);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

// Writes an octet to elements first..first + 7 of a row; nothing beyond its end.
template <class T>
__device__ void store_octet(T* row, int64_t size, bool aligned, int64_t first, const Octet<T>& octet) {
  if (aligned && first + kOctet <= size) {
#pragma unroll
    for (int word = 0; word < static_cast<int>(sizeof octet / sizeof(uint4)); ++word)  // = may become four stores
      __stwb(reinterpret_cast<uint4*>(row + first) + word, reinterpret_cast<const uint4*>(octet.value)[word]);
  } else {
#pragma unroll
    for (int i = 0; i < kOctet; ++i)
      if (first + i < size) row[first + i] = octet.value[i];
  }
}

// Writes value(0)..value(7), rounded, to elements first..first + 7 of a row; nothing beyond its end.
template <class T, class Value>
__device__ void store_rounded(T* row, int64_t size, int64_t first, const Value& value) {
  Octet<T> octet;
#pragma unroll
  for (int j = 0; j < kOctet; ++j) octet.value[j] = from_float<T>(value(j));
  store_octet(row, size, reinterpret_cast<uintptr_t>(row) % sizeof(uint4) == 0, first, octet);
}

constexpr int64_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

}  // namespace eagle::cuda
