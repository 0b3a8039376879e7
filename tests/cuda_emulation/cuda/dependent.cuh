// Programmatic dependent launches on the CPU, where nothing overlaps: that every thread waits is checked.
#pragma once
#include <stdexcept>

#include "cuda_runtime.h"

namespace eagle::cuda {

inline void wait_for_earlier_kernels() { cuda_emulation::note_wait(); }

inline void prefetch_async(const void* from, unsigned bytes) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0)
    throw std::runtime_error("cuda_emulation: a prefetch's address or size is not a multiple of 16");
}

}  // namespace eagle::cuda
