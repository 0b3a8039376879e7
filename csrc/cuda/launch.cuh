// Launch helpers shared by the kernels.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace eagle::cuda {

inline cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

// Turns a failed launch into an exception that names the op; torch shows it as a RuntimeError.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(op) + ": " + cudaGetErrorString(error));
}

// Whether the code that runs for a kernel waits for earlier ones by itself: it was compiled for sm_90 or later, which
// code for an older architecture that the driver translates for a newer GPU was not.
template <class Kernel>
bool waits_for_earlier(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.ptxVersion >= 90;
}

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...) as an ordinary call, which any C++ compiler can read. The
// kernel may take its place while the one before it ends: see dependent.cuh.
template <class... Parameters, class... Arguments>
void launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes, void* stream,
                   Arguments&&... arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = as_stream(stream);
  config.attrs = &early;
  config.numAttrs = waits_for_earlier(kernel) ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void* stream, Arguments&&... arguments) {
  launch_kernel(kernel, grid, block, 0, stream, std::forward<Arguments>(arguments)...);
}

// With dynamic shared memory, which may be more than the default 48 KB.
template <class... Parameters, class... Arguments>
void launch_shared(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes, void* stream,
                   Arguments&&... arguments) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  launch_kernel(kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace eagle::cuda
