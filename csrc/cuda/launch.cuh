// Launch helpers shared by the kernels.
#pragma once
#include <cuda_runtime.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "cuda/device.cuh"

namespace eagle::cuda {

inline cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

// Turns a failed launch into an exception that names the op; torch shows it as a RuntimeError.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(op) + ": " + cudaGetErrorString(error));
}

// Whether kernels may take their places early (dependent.cuh): EAGLE_EARLY_LAUNCH=0 in the environment forbids it,
// which shows what it gives, and what is wrong where a driver cannot capture it.
inline bool early_launches() {
  static const char* const setting = std::getenv("EAGLE_EARLY_LAUNCH");
  return setting == nullptr || std::string_view(setting) != "0";
}

struct LaunchShape {
  dim3 grid, block;
  int64_t shared_bytes = 0;
  dim3 cluster = {};  // in blocks, of which `grid` is a multiple; more than one only where has_clusters (device.cuh)
};

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...) as an ordinary call, which any C++ compiler can read.
// Raises the kernel's limit of dynamic shared memory, 48 KB at first, where it must, and to all there is: whatever
// other threads do meanwhile, and whatever captured launches rely on, it never sinks. The kernel may take its place
// while the one before it ends (dependent.cuh) where its code was compiled for sm_90 or later: older code that the
// driver translated for a newer GPU does not wait by itself.
template <class... Parameters, class... Arguments>
void launch_shaped(void (*kernel)(Parameters...), const LaunchShape& shape, void* stream, Arguments&&... arguments) {
  cudaFuncAttributes of_kernel{};
  cudaFuncGetAttributes(&of_kernel, kernel);
  const int64_t limit = of_kernel.maxDynamicSharedSizeBytes, own = of_kernel.sharedSizeBytes;
  if (limit < shape.shared_bytes + own)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(max_shared_bytes() - own));
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = as_stream(stream);
  config.attrs = attributes;
  if (of_kernel.ptxVersion >= 90 && early_launches()) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster.x * shape.cluster.y * shape.cluster.z > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = shape.cluster.x;
    cluster.val.clusterDim.y = shape.cluster.y;
    cluster.val.clusterDim.z = shape.cluster.z;
  }
  cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

template <class... Parameters, class... Arguments>
void launch_shared(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes, void* stream,
                   Arguments&&... arguments) {
  launch_shaped(kernel, {grid, block, shared_bytes}, stream, std::forward<Arguments>(arguments)...);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void* stream, Arguments&&... arguments) {
  launch_shaped(kernel, {grid, block}, stream, std::forward<Arguments>(arguments)...);
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace eagle::cuda
