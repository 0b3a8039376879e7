// Clusters: blocks that run at the same time, wait for one another and reach into one another's shared memory. Code for
// less than sm_90 knows none: there, as after any ordinary launch, a block is a cluster by itself.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace eagle::cuda {

constexpr int kClusterBlocks = 8;  // as many as every GPU with clusters runs

__device__ __forceinline__ int cluster_size() {
#if __CUDA_ARCH__ >= 900
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return static_cast<int>(size);
#else
  return 1;
#endif
}

// The block's number in its cluster.
__device__ __forceinline__ int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}

// All threads of the cluster must come. What they wrote before, to shared memory of any block too, all can read then.
__device__ __forceinline__ void cluster_barrier() {
  if (cluster_size() == 1) return __syncthreads();
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// A variable in shared memory as block `rank` of the cluster has it; to be touched between barriers of the cluster
// only.
template <class T>
__device__ __forceinline__ T* in_block(T* mine, int rank) {
#if __CUDA_ARCH__ >= 900
  T* theirs;
  asm("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"(mine), "r"(rank));
  return theirs;
#else
  return mine;
#endif
}

}  // namespace eagle::cuda
