// Bytes to 16 bits on the CPU.
#pragma once
#include <cstdint>

namespace eagle::cuda {

template <int kPair>
uint32_t sign_extended(uint32_t bytes) {
  const auto extended = [&](int i) { return static_cast<uint16_t>(static_cast<int8_t>(bytes >> 8 * i)); };
  return extended(2 * kPair) | static_cast<uint32_t>(extended(2 * kPair + 1)) << 16;
}

}  // namespace eagle::cuda
