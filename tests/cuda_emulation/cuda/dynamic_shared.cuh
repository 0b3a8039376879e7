// The shared memory whose size the launch gives, on the CPU.
#pragma once
#include "cuda_runtime.h"

namespace eagle::cuda {

inline char* dynamic_shared() { return cuda_emulation::dynamic_shared; }

}  // namespace eagle::cuda
