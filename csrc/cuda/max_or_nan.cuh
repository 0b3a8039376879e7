// A maximum that does not lose NaN.
#pragma once

namespace eagle::cuda {

// The larger one, or the positive NaN if either is NaN.
__device__ inline float max_or_nan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

}  // namespace eagle::cuda
