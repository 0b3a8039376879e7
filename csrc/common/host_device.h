// Functions shared by the CPU and CUDA kernels.
#pragma once

#if defined(__CUDACC__)
#define EAGLE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define EAGLE_HOST_DEVICE inline __attribute__((always_inline))
#endif
