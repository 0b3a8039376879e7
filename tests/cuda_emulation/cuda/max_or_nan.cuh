// The maximum that does not lose NaN on the CPU.
#pragma once
#include <cmath>

namespace eagle::cuda {

inline float max_or_nan(float a, float b) { return a != a || b != b ? NAN : a > b ? a : b; }

}  // namespace eagle::cuda
