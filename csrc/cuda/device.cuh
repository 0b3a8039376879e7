// What the current device offers, for the host code that sizes grids and tiles.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace eagle::cuda {

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

inline int num_multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline int64_t max_shared_bytes() { return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

// Whether the kernel's blocks may be launched as clusters (cluster.cuh): its code was compiled for sm_90 or later, and
// not translated from an older architecture's.
template <class Kernel>
bool has_clusters(Kernel* kernel) {
  cudaFuncAttributes of_kernel{};
  cudaFuncGetAttributes(&of_kernel, kernel);
  return of_kernel.ptxVersion >= 90;
}

// Whether the current device multiplies by wgmma, and the kernel's code does: older code leaves it out.
template <class Kernel>
bool runs_wgmma(Kernel* kernel) {
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 && has_clusters(kernel);
}

// How many blocks run at a time when shared memory is what limits them, `most` a multiprocessor.
inline int64_t resident_blocks(int64_t shared_bytes, int64_t most) {
  constexpr int64_t kReserved = 1024;  // taken by the system from each block's share
  const int64_t room = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  return num_multiprocessors() * std::clamp<int64_t>(room / (shared_bytes + kReserved), 1, most);
}

}  // namespace eagle::cuda
