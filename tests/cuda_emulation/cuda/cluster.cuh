// Clusters on the CPU: every block of a cluster is a thread with shared memory of its own (fibers.cpp).
#pragma once
#include "cuda_runtime.h"

namespace eagle::cuda {

constexpr int kClusterBlocks = 3;  // few take less time, and three are no power of two

// A place in the block's shared memory, from which all else lies equally far in each block.
inline thread_local char shared_memory;

inline int cluster_size() { return static_cast<int>(cuda_emulation::cluster_blocks()); }
inline int cluster_rank() { return static_cast<int>(cuda_emulation::cluster_rank()); }
inline void cluster_barrier(cuda_emulation::Where where = cuda_emulation::Where::current()) {
  cuda_emulation::wait_for_cluster(&shared_memory, where);
}

template <class T>
T* in_block(T* mine, int rank) {
  char* const theirs = cuda_emulation::shared_memory_of(rank);
  return reinterpret_cast<T*>(theirs + (reinterpret_cast<char*>(mine) - &shared_memory));
}

}  // namespace eagle::cuda
