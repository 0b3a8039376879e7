// Just enough of CUDA to compile a kernel with any C++ compiler and run it on the CPU, without a GPU.
//
// The threads of a block are fibers of one thread. A barrier or a warp exchange hands over to the next fiber, in an
// order that is shuffled every time, and now and then a warp falls behind the others, so that a missing barrier gives
// wrong results sooner or later; lanes that meet in different collectives, and barriers that not all threads reach, are
// errors. Blocks run one after another, also in shuffled order, those of a cluster by turns, from one of its barriers
// to the next. Nothing here says anything about speed, nor about races that need real concurrency. With
// CUDA_EMULATION_IN_ORDER threads take turns in order, which takes a fraction of the time.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>
#include <source_location>
#include <stdexcept>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __grid_constant__
#define __launch_bounds__(...)
#define __CUDA_ARCH_FEAT_SM90_ALL

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
  constexpr dim3(uint32_t x = 1, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};

// Of the fiber that runs.
inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_emulation {

using Where = std::source_location;

// Runs `thread` once for every thread of the grid, a multiple of the cluster. One that begins early has to wait for
// earlier kernels, in every thread and before the thread meets any other.
void run(dim3 grid, dim3 block, dim3 cluster, bool begins_early, const std::function<void()>& thread);
// Does a launch's work: at once, or again whenever a graph is launched that captured it (tests/pretended_gpu).
void submit(void* stream, std::function<void()> work);
void note_wait();
void wait_for_block(Where where);
// Tells the other blocks of the cluster where this one's shared memory lies, and waits for them.
void wait_for_cluster(char* shared_memory, Where where);
char* shared_memory_of(int rank);  // of a block that this one has waited for
inline dim3 cluster_shape;         // of the kernel that runs
inline unsigned cluster_blocks() { return cluster_shape.x * cluster_shape.y * cluster_shape.z; }
unsigned cluster_rank();
// Posts this lane's value and returns those of all 32 lanes, valid until the warp's next exchange.
const uint64_t* exchange(uint64_t value, Where where);
unsigned lane();

// The GPU: the least of those that kernels are built for, unless a test or the build asks for Hopper.
#ifndef CUDA_EMULATION_COMPUTE_CAPABILITY_MAJOR
#define CUDA_EMULATION_COMPUTE_CAPABILITY_MAJOR 8
#endif
struct Device {
  int num_multiprocessors = 4, compute_capability_major = CUDA_EMULATION_COMPUTE_CAPABILITY_MAJOR;
  int code_version = 90;  // what kernels were compiled for
  size_t max_dynamic_shared() const { return (compute_capability_major == 9 ? 227 : 99) << 10; }
};
inline Device device;

// Of the block that runs; NaN wherever a launch wrote nothing yet.
alignas(1024) inline thread_local char dynamic_shared[227 << 10];
inline size_t dynamic_shared_bytes = 0;
inline uint64_t block_number = 0;  // counts the blocks that have begun

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace cuda_emulation

inline void __syncthreads(cuda_emulation::Where where = cuda_emulation::Where::current()) {
  cuda_emulation::wait_for_block(where);
}
inline void __threadfence() {}

template <class T>
T __shfl_sync(unsigned, T value, int source, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  return cuda_emulation::from_word<T>(cuda_emulation::exchange(cuda_emulation::to_word(value), where)[source & 31]);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  return __shfl_sync(mask, value, static_cast<int>(cuda_emulation::lane()) ^ bits, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const int lane = static_cast<int>(cuda_emulation::lane());
  return __shfl_sync(mask, value, lane >= delta ? lane - delta : lane, where);
}
inline unsigned __ballot_sync(unsigned, bool vote, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const uint64_t* votes = cuda_emulation::exchange(vote, where);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(votes[lane]) << lane;
  return bits;
}

inline bool __any_sync(unsigned mask, bool vote, cuda_emulation::Where where = cuda_emulation::Where::current()) {
  return __ballot_sync(mask, vote, where) != 0;
}

inline unsigned __reduce_max_sync(unsigned, unsigned value,
                                  cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const uint64_t* values = cuda_emulation::exchange(value, where);
  return static_cast<unsigned>(*std::max_element(values, values + 32));
}
inline unsigned __reduce_or_sync(unsigned, unsigned value,
                                 cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const uint64_t* values = cuda_emulation::exchange(value, where);
  return static_cast<unsigned>(std::accumulate(values, values + 32, uint64_t{0}, std::bit_or<>()));
}
inline unsigned __reduce_min_sync(unsigned, unsigned value,
                                  cuda_emulation::Where where = cuda_emulation::Where::current()) {
  const uint64_t* values = cuda_emulation::exchange(value, where);
  return static_cast<unsigned>(*std::min_element(values, values + 32));
}

// One fiber runs at a time, so plain arithmetic is atomic.
template <class T>
T atomicOr(T* address, T value) {
  return std::exchange(*address, *address | value);
}
template <class T>
T atomicAdd(T* address, T value) {
  return std::exchange(*address, *address + value);
}
template <class T>
T atomicMax(T* address, T value) {
  return std::exchange(*address, *address > value ? *address : value);
}

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}
inline int __clzll(int64_t x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
template <class T>
void __stwb(T* to, T value) {
  *to = value;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline uint32_t __float_as_uint(float x) { return static_cast<uint32_t>(cuda_emulation::to_word(x)); }
inline float __uint_as_float(uint32_t x) { return cuda_emulation::from_word<float>(x); }
inline float __int_as_float(int x) { return __uint_as_float(static_cast<uint32_t>(x)); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

// Full of NaN.
inline cudaError_t cudaMalloc(void** address, size_t bytes) {
  *address = ::operator new(bytes, std::align_val_t(256));
  std::memset(*address, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* address) {
  ::operator delete(address, std::align_val_t(256));
  return cudaSuccess;
}

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor
};
inline void cudaGetDevice(int* device) { *device = 0; }
inline void cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const cuda_emulation::Device& device = cuda_emulation::device;
  *value = attribute == cudaDevAttrMultiProcessorCount      ? device.num_multiprocessors
           : attribute == cudaDevAttrComputeCapabilityMajor ? device.compute_capability_major
                                                            : static_cast<int>(device.max_dynamic_shared());
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
void cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {}

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
  int ptxVersion, maxDynamicSharedSizeBytes;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = {
      .sharedSizeBytes = 0, .ptxVersion = cuda_emulation::device.code_version, .maxDynamicSharedSizeBytes = 48 << 10};
  return cudaSuccess;
}

enum cudaLaunchAttributeID {
  cudaLaunchAttributeProgrammaticStreamSerialization = 1,
  cudaLaunchAttributeClusterDimension
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
    dim3 clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (config->dynamicSmemBytes > cuda_emulation::device.max_dynamic_shared())
    throw std::runtime_error("cuda_emulation: more dynamic shared memory than a block can have");
  bool begins_early = false;
  dim3 cluster;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeClusterDimension)
      cluster = attribute.val.clusterDim;
    else
      begins_early = attribute.val.programmaticStreamSerializationAllowed != 0;
  }
  auto work = [=, config = *config, arguments = std::tuple<Parameters...>(arguments...)] {
    cuda_emulation::dynamic_shared_bytes = config.dynamicSmemBytes;
    std::memset(cuda_emulation::dynamic_shared, 0xff, sizeof cuda_emulation::dynamic_shared);
    cuda_emulation::run(config.gridDim, config.blockDim, cluster, begins_early, [&] { std::apply(kernel, arguments); });
  };
  cuda_emulation::submit(config->stream, work);
  return cudaSuccess;
}
