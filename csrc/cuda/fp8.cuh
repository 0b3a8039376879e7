// fp8 (e4m3) weights on the device: exact conversions by shifts and one multiplication, the same on every architecture.
//
// Moving an e4m3 number's exponent and mantissa to the fields of a wider type leaves it too small by a power of two,
// since that type's bias is larger; subnormals too. The multiplication makes up for it. NaN is not among the weights.
#pragma once
#include <type_traits>

#include "cuda/element.cuh"
#include "cuda/sign_extend.cuh"

namespace eagle::cuda {

struct Fp8 {
  uint8_t bits;
};

__device__ inline float to_float(Fp8 x) {
  return __uint_as_float((x.bits & 0x80u) << 24 | (x.bits & 0x7fu) << 20) * 0x1p120f;
}

// Bytes 2 * kPair and 2 * kPair + 1 of a word as two numbers of a 16-bit type side by side.
template <class T, int kPair>
__device__ uint32_t widen(uint32_t bytes) {
  const uint32_t extended = sign_extended<kPair>(bytes);  // so that a shift leaves the sign on top
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const uint32_t small = extended << 4 & 0x87f087f0u;
    const __nv_bfloat162 pair = __hmul2(reinterpret_cast<const __nv_bfloat162&>(small), __float2bfloat162_rn(0x1p120f));
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    static_assert(std::is_same_v<T, __half>);
    const uint32_t small = extended << 7 & 0xbf80bf80u;
    const __half2 pair = __hmul2(reinterpret_cast<const __half2&>(small), __float2half2_rn(0x1p8f));
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

}  // namespace eagle::cuda
