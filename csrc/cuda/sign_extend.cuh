// Bytes to 16 bits in one instruction.
#pragma once
#include <cstdint>

namespace eagle::cuda {

// Bytes 2 * kPair and 2 * kPair + 1 of a word side by side, each under eight copies of its highest bit.
template <int kPair>
__device__ uint32_t sign_extended(uint32_t bytes) {
  uint32_t pair;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(pair) : "r"(bytes), "n"(kPair == 0 ? 0x9180 : 0xb3a2));
  return pair;
}

}  // namespace eagle::cuda
