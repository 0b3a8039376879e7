// Draft trees as every kernel sees them: ancestor masks of 64 rows a word, and the order of candidates.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace eagle {

constexpr int kMaskWordBits = 64;
constexpr int kMaxMaskWords = 2;
constexpr int kMaxNodes = kMaxMaskWords * kMaskWordBits;

// A word whose first `count` bits are set.
EAGLE_HOST_DEVICE uint64_t low_bits(int64_t count) {
  return count <= 0 ? 0 : count >= kMaskWordBits ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

EAGLE_HOST_DEVICE bool has_bit(const int64_t* words, int64_t bit) {
  return (static_cast<uint64_t>(words[bit / kMaskWordBits]) >> (bit % kMaskWordBits)) & 1;
}

EAGLE_HOST_DEVICE void set_bit(int64_t* words, int64_t bit) {
  words[bit / kMaskWordBits] |= static_cast<int64_t>(uint64_t{1} << (bit % kMaskWordBits));
}

// A candidate's score as it is ranked: NaN counts as -inf.
EAGLE_HOST_DEVICE float rank_score(float score) { return score == score ? score : -__builtin_inff(); }

// Candidates are ordered by score, descending; ties go to the lower slot.
EAGLE_HOST_DEVICE bool outranks(float score, int64_t slot, float other_score, int64_t other_slot) {
  return score > other_score || (score == other_score && slot < other_slot);
}

}  // namespace eagle
