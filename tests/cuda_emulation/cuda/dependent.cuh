// Programmatic dependent launches on the CPU, where nothing overlaps: that every thread waits is checked.
#pragma once
#include "cuda_runtime.h"

namespace eagle::cuda {

inline void wait_for_earlier_kernels() { cuda_emulation::note_wait(); }

constexpr int kLineBytes = 128;
inline void prefetch_line(const void*) {}

}  // namespace eagle::cuda
