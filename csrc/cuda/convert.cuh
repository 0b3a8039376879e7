// Element types in kernels: values are computed in float and rounded once on their way out; packs of 16 bytes.
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

// kWidth neighbouring elements in one access; the address must be a multiple of the pack's size.
template <class T, int kWidth>
struct alignas(kWidth * sizeof(T)) Pack {
  static_assert(kWidth * sizeof(T) <= 16);
  T value[kWidth];
};

template <class T>
constexpr int kFullWidth = 16 / sizeof(T);

template <class T, int kWidth>
__device__ Pack<T, kWidth> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}

template <class T, int kWidth>
__device__ void store_pack(T* to, const Pack<T, kWidth>& pack) {
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

constexpr int64_t element_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

}  // namespace eagle::cuda
