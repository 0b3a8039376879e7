// Philox bits for a group of 64 consecutive tokens, in token order.
#pragma once
#include "common/elementary.h"
#include "common/philox.h"
#include "cpu/sixteen.h"

namespace eagle::cpu {

constexpr int kGroup = 64;
constexpr int kGroupVectors = kGroup / kLanes;

struct NoiseKey {
  PhiloxKey key;
  uint32_t position;
  Stream stream;
  uint32_t node = 0;
};

struct GroupBits {
  vuint vector[kGroupVectors];
};

EAGLE_INLINE vuint zip_low(vuint a, vuint b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
EAGLE_INLINE vuint zip_high(vuint a, vuint b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// A lane computes four consecutive tokens; two rounds of zipping put them in order. first_token is a multiple of 64.
EAGLE_INLINE GroupBits group_bits(const NoiseKey& noise, int64_t first_token) {
  const vuint block =
      static_cast<uint32_t>(first_token / 4) + vuint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const PhiloxBlock<Sixteen> four = philox<Sixteen>(noise.key, block, noise.position, noise.stream, noise.node);
  const vuint even_low = zip_low(four.word[0], four.word[2]), even_high = zip_high(four.word[0], four.word[2]);
  const vuint odd_low = zip_low(four.word[1], four.word[3]), odd_high = zip_high(four.word[1], four.word[3]);
  return {{zip_low(even_low, odd_low), zip_high(even_low, odd_low), zip_low(even_high, odd_high),
           zip_high(even_high, odd_high)}};
}

EAGLE_INLINE float token_gumbel(const NoiseKey& noise, int64_t token) {
  return gumbel<OneLane>(
      philox_bits(noise.key, static_cast<uint32_t>(token), noise.position, noise.stream, noise.node));
}

}  // namespace eagle::cpu
