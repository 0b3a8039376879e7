// 2^x by the special function unit.
#pragma once

namespace eagle::cuda {

// To 2^-22 of the result; 0 for -inf, NaN for NaN.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace eagle::cuda
