// Which keys of a block a tree row may read, as the bits of one word.
#pragma once
#include <cstdint>

#include "common/host_device.h"
#include "common/tree.h"

namespace eagle::cuda {

struct AncestorWords {
  uint64_t word[kMaxMaskWords];
};

EAGLE_HOST_DEVICE AncestorWords ancestor_words(const int64_t* mask, int64_t mask_words) {
  static_assert(kMaxMaskWords == 2);
  return {static_cast<uint64_t>(mask[0]), mask_words > 1 ? static_cast<uint64_t>(mask[1]) : 0};
}

// Bit i stands for cache row first + i: every row of the committed prefix, the ancestors behind it, nothing from
// `length` on.
EAGLE_HOST_DEVICE uint64_t visible_keys(const AncestorWords& ancestors, int64_t context, int64_t first,
                                        int64_t length) {
  const int64_t node = first - context;  // that bit 0 stands for
  uint64_t bits;
  if (node < 0) {
    bits = low_bits(-node);
    if (node > -kMaskWordBits) bits |= ancestors.word[0] << -node;
  } else if (node < kMaskWordBits) {
    bits = ancestors.word[0] >> node;
    if (node > 0) bits |= ancestors.word[1] << (kMaskWordBits - node);
  } else {
    bits = node < kMaxNodes ? ancestors.word[1] >> (node - kMaskWordBits) : 0;
  }
  return bits & low_bits(length - first);
}

// Bit i: cache row first + i is not before `start`.
EAGLE_HOST_DEVICE uint64_t keys_from(int64_t start, int64_t first) { return ~low_bits(start - first); }

}  // namespace eagle::cuda
