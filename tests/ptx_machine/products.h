// What mma.sync and wgmma have in common.
#pragma once
#include <array>

#include "floats.h"
#include "machine.h"

namespace ptx_machine {

using LeftOperand = std::array<std::array<float, 16>, 16>;

// The 16x16 matrix of 16-bit elements that a warp holds in four words a lane.
inline LeftOperand left_operand(const Warp& warp, const uint32_t* at, float (*to_float)(uint32_t)) {
  LeftOperand a;
  for (int lane = 0; lane < kLanes; ++lane)
    for (int n = 0; n < 4; ++n) {
      const uint32_t pair = warp.get<uint32_t>(at[n], lane);
      const int row = lane / 4 + n % 2 * 8, k = lane % 4 * 2 + n / 2 * 8;
      a[row][k] = to_float(pair & 0xffff);
      a[row][k + 1] = to_float(pair >> 16);
    }
  return a;
}

}  // namespace ptx_machine
