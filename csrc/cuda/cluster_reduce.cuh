// Reductions over the threads of a cluster; every thread gets the result, the same bits in all blocks.
#pragma once
#include "cuda/cluster.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

// All threads of the cluster must call it; whole warps only.
template <class T, class Op>
__device__ T cluster_reduce(T value, T identity, Op op) {
  value = block_reduce(value, identity, op);
  if (cluster_size() == 1) return value;
  __shared__ T of_block[kClusterBlocks];
  cluster_barrier();  // all blocks run, and have read an earlier reduction's
  const int block = static_cast<int>(threadIdx.x);
  if (block < cluster_size()) *in_block(&of_block[cluster_rank()], block) = value;
  cluster_barrier();
  return warp_reduce(lane_id() < cluster_size() ? of_block[lane_id()] : identity, op);
}

// A warp's number among those of its cluster, block by block in turn, and how many these are.
__device__ inline int cluster_warp_id() { return warp_id() * cluster_size() + cluster_rank(); }
__device__ inline int num_cluster_warps() { return cluster_size() * num_warps(); }

}  // namespace eagle::cuda
