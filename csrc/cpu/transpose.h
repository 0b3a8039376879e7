// Square blocks of 32-bit words, a row a vector, turned into columns by shuffles of whole vectors.
#pragma once
#include <utility>

#include "cpu/vectors.h"

namespace eagle::cpu {

// In every four lanes (a0, b0, a1, b1), or with kUpper (a2, b2, a3, b3).
template <bool kUpper, class V, int... i>
EAGLE_INLINE V zip_fours(V a, V b, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 4 / 2 + 2 * kUpper + i % 2 * sizeof...(i))...);
}

// Every other four lanes of a, then of b: the first ones, or with kOdd the second ones.
template <bool kOdd, class V, int... i>
EAGLE_INLINE V pick_fours(V a, V b, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, (i / 4 * 8 + 4 * kOdd + i % 4)...);
}

// block[i][j] becomes block[j][i].
template <int kLanes>
EAGLE_INLINE void transpose(typename Lanes<kLanes>::Word (&block)[kLanes]) {
  typename Lanes<kLanes>::Word next[kLanes];
  // Blocks of 4 x 4: four rows become columns j, j + 4, j + 8, ... of these rows, for j below 4.
#pragma GCC unroll 2
  for (int stage = 0; stage < 2; ++stage) {
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      const int row = i / 2 * 4 + i % 2;
      next[2 * i] = zip_fours<false>(block[row], block[row + 2], kEachLane<kLanes>);
      next[2 * i + 1] = zip_fours<true>(block[row], block[row + 2], kEachLane<kLanes>);
    }
    std::memcpy(block, next, sizeof next);
  }
  // The blocks among themselves.
#pragma GCC unroll 2
  for (int blocks = kLanes / 4; blocks > 1; blocks /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      const int row = i / 4 * 8 + i % 4;
      next[i] = pick_fours<false>(block[row], block[row + 4], kEachLane<kLanes>);
      next[i + kLanes / 2] = pick_fours<true>(block[row], block[row + 4], kEachLane<kLanes>);
    }
    std::memcpy(block, next, sizeof next);
  }
}

}  // namespace eagle::cpu
