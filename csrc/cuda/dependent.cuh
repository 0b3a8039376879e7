// Programmatic dependent launches: a kernel takes its place on the GPU while the one before it ends (sm_90 and later).
#pragma once

namespace eagle::cuda {

// The first statement of every kernel, run by all its threads. Before it, a thread may touch no memory that any other
// kernel writes; after it, what all earlier kernels of the stream wrote can be read, and the next kernel may come and
// wait in its turn. Because each waits before it lets another come, at most two kernels of a stream are on the GPU, and
// the second only waits. It compiles to nothing before sm_90, where `launch` asks for no early start.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

constexpr int kLineBytes = 128;  // of the second-level cache

// Brings the line that holds `address` into the second-level cache: a hint, which reads nothing into the kernel and so
// may come before the wait.
__device__ __forceinline__ void prefetch_line(const void* address) {
#if __CUDA_ARCH__ >= 900
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

}  // namespace eagle::cuda
