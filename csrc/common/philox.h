// Philox4x32-10: noise as a pure function of (seed, position, stream, token). Salmon et al., SC 2011.
#pragma once
#include "common/lanes.h"

namespace eagle {

// Independent noise for each purpose at one position.
enum class Stream : uint32_t { kSample, kDraft, kAccept, kResidual, kBonus };

struct PhiloxKey {
  uint32_t low, high;
};

EAGLE_HOST_DEVICE PhiloxKey philox_key(int64_t seed) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32)};
}

template <class L>
struct PhiloxBlock {
  typename L::Word word[4];  // word j belongs to token 4 * block + j
};

// Ten rounds over counter = (block, position, stream, node).
template <class L>
EAGLE_HOST_DEVICE PhiloxBlock<L> philox(PhiloxKey key, typename L::Word block, uint32_t position, Stream stream,
                                        uint32_t node = 0) {
  using Word = typename L::Word;
  Word c0 = block, c1 = Word{} + position, c2 = Word{} + static_cast<uint32_t>(stream), c3 = Word{} + node;
  for (int round = 0; round < 10; ++round) {
    Word low0, low1;
    const Word high0 = L::mul_high(c0, 0xD2511F53u, low0);
    const Word high1 = L::mul_high(c2, 0xCD9E8D57u, low1);
    c0 = high1 ^ c1 ^ key.low;
    c1 = low1;
    c2 = high0 ^ c3 ^ key.high;
    c3 = low0;
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The 32 bits of one token.
EAGLE_HOST_DEVICE uint32_t philox_bits(PhiloxKey key, uint32_t token, uint32_t position, Stream stream,
                                       uint32_t node = 0) {
  return philox<OneLane>(key, token >> 2, position, stream, node).word[token & 3];
}

}  // namespace eagle
