// The shared memory whose size the launch gives.
#pragma once

namespace eagle::cuda {

// A multiple of 128 bytes, so that swizzled tiles can begin there.
__device__ inline char* dynamic_shared() {
  extern __shared__ __align__(128) char bytes[];
  return bytes;
}

}  // namespace eagle::cuda
