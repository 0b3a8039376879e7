// 2^x on the CPU.
#pragma once
#include <cmath>

namespace eagle::cuda {

inline float exp2_approx(float x) { return exp2f(x); }

}  // namespace eagle::cuda
