// Numbers of 16 bits, and what the GPU does to subnormal ones.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace ptx_machine {

inline float to_bfloat16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
inline uint16_t from_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float to_float16(uint32_t bits) {
  return static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits)));
}
inline uint16_t from_float16(float value) {
  return std::isnan(value) ? 0x7fff : std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}

// 0 of the same sign for a subnormal number.
inline float flushed(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

}  // namespace ptx_machine
