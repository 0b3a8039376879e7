// Arithmetic that rounds after every operation, as a policy: one lane here (host and device), sixteen in cpu/sixteen.h.
// Masks are integers, all bits set or none.
#pragma once
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace eagle {

// Host code that uses it must include cpu/no_contraction.h; on the device the intrinsics forbid contraction.
struct OneLane {
  using Float = float;
  using Int = int32_t;
  using Word = uint32_t;

  static EAGLE_HOST_DEVICE Float of(float c) { return c; }
  static EAGLE_HOST_DEVICE Int less(Float a, Float b) { return -static_cast<int32_t>(a < b); }
  static EAGLE_HOST_DEVICE Float select(Int mask, Float a, Float b) { return mask ? a : b; }
  static EAGLE_HOST_DEVICE Int as_int(Word x) { return static_cast<int32_t>(x); }
  static EAGLE_HOST_DEVICE Float to_float(Int x) { return static_cast<float>(x); }
  static EAGLE_HOST_DEVICE Int to_int(Float x) { return static_cast<int32_t>(x); }
#if defined(__CUDA_ARCH__)
  static EAGLE_HOST_DEVICE Float add(Float a, Float b) { return __fadd_rn(a, b); }
  static EAGLE_HOST_DEVICE Float mul(Float a, Float b) { return __fmul_rn(a, b); }
  static EAGLE_HOST_DEVICE Float div(Float a, Float b) { return __fdiv_rn(a, b); }
  static EAGLE_HOST_DEVICE Int bits(Float x) { return __float_as_int(x); }
  static EAGLE_HOST_DEVICE Float from_bits(Int x) { return __int_as_float(x); }
  static EAGLE_HOST_DEVICE Word mul_high(Word a, uint32_t b, Word& low) {
    low = a * b;
    return __umulhi(a, b);
  }
#else
  static EAGLE_HOST_DEVICE Float add(Float a, Float b) { return a + b; }
  static EAGLE_HOST_DEVICE Float mul(Float a, Float b) { return a * b; }
  static EAGLE_HOST_DEVICE Float div(Float a, Float b) { return a / b; }
  static EAGLE_HOST_DEVICE Int bits(Float x) {
    Int bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
  }
  static EAGLE_HOST_DEVICE Float from_bits(Int bits) {
    Float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
  static EAGLE_HOST_DEVICE Word mul_high(Word a, uint32_t b, Word& low) {
    const uint64_t product = static_cast<uint64_t>(a) * b;
    low = static_cast<uint32_t>(product);
    return static_cast<uint32_t>(product >> 32);
  }
#endif
};

}  // namespace eagle
