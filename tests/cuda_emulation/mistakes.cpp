// Kernels with mistakes that the emulation and the machine of tests/ptx_machine must expose, for ctypes as in
// harness.cpp. In angle brackets, so that the compiler's options say whether the emulation's headers or the real ones
// are meant.
#include <cuda/cluster.cuh>
#include <cuda/cp_async.cuh>
#include <cuda/dependent.cuh>
#include <cuda/dynamic_shared.cuh>
#include <cuda/launch.cuh>
#include <cuda/reduce.cuh>
#include <cuda/wgmma.cuh>

#include "launchers.h"

namespace {

using namespace eagle::cuda;

// Reverses 64 numbers through shared memory; wrong without the barrier.
__global__ void reverse(const int32_t* in, int32_t* out, bool with_barrier) {
  wait_for_earlier_kernels();
  __shared__ int32_t tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

// Half of a warp votes while the other half shuffles.
__global__ void diverge(int32_t* out) {
  wait_for_earlier_kernels();
  if (lane_id() < 16)
    out[threadIdx.x] = static_cast<int32_t>(__ballot_sync(kAllLanes, true));
  else
    out[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0);
}

// The last thread leaves before it has waited for earlier kernels.
__global__ void leave_early(int32_t* out) {
  if (threadIdx.x == 63) return;
  wait_for_earlier_kernels();
  out[threadIdx.x] = 0;
}

enum ClusterMistake : int64_t { kGood, kNoBarrierBefore, kNoBarrierAfter, kOneBlockLeaves };

// Each block of a cluster tells the next one its rank.
__global__ void tell_next_block(int32_t* out, ClusterMistake mistake) {
  wait_for_earlier_kernels();
  __shared__ int32_t told;
  if (mistake != kNoBarrierBefore) cluster_barrier();
  if (mistake == kOneBlockLeaves && cluster_rank() == 0) return;
  if (threadIdx.x == 0) *in_block(&told, (cluster_rank() + 1) % cluster_size()) = cluster_rank() + 1;
  if (mistake == kNoBarrierAfter)
    __syncthreads();
  else
    cluster_barrier();
  if (threadIdx.x == 0) out[blockIdx.x] = told;
}

enum Mistake : int64_t { kNone, kNotShown, kNotBegun, kOperandChanged, kSumsChanged, kWaitsApart, kReadEarly };

// A warpgroup multiplies 64 rows of 16 ones by 16 rows of 64 ones: 16 everywhere.
__global__ void multiply_ones(int32_t* out, Mistake mistake) {
  wait_for_earlier_kernels();
  constexpr uint16_t kOne = 0x3f80;  // of bfloat16
  const uint16_t ones[8] = {kOne, kOne, kOne, kOne, kOne, kOne, kOne, kOne};
  const uint32_t panel = shared_address(dynamic_shared());
  copy16_gathered(panel + swizzled(threadIdx.x / 8, threadIdx.x % 8), ones, true);
  if (mistake != kNotShown) show_to_products();
  __syncthreads();
  uint32_t operand[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
  settle(operand);  // or its constants get into registers behind begin_products
  Sums64 sums = {};
  if (mistake != kNotBegun) begin_products();
  multiply_64<__nv_bfloat16, Panel::kRowsOfOperand>(sums, operand, panel_descriptor(panel), false);
  commit_products();
  if (mistake == kOperandChanged) operand[0] = 0;
  if (mistake == kSumsChanged) sums[0][0] = 0;
  if (mistake == kReadEarly) out[threadIdx.x] = sums[7][3] == 16;
  if (mistake == kWaitsApart && warp_id() == 0)
    wait_products<0>();
  else
    wait_products<0>();
  if (mistake != kReadEarly) out[threadIdx.x] = sums[7][3] == 16;
}

}  // namespace

extern "C" {

const char* reverse_64(const int32_t* in, int32_t* out, int64_t with_barrier) {
  return guarded([&] { launch(&reverse, dim3(1), dim3(64), nullptr, in, out, with_barrier != 0); });
}

const char* diverge_64(int32_t* out) {
  return guarded([&] { launch(&diverge, dim3(1), dim3(64), nullptr, out); });
}

const char* leave_early_64(int32_t* out) {
  return guarded([&] { launch(&leave_early, dim3(1), dim3(64), nullptr, out); });
}

const char* tell_next_block(int32_t* out, int64_t clusters, int64_t mistake) {
  return guarded([&] {
    launch_shaped(&tell_next_block, {dim3(clusters * kClusterBlocks), dim3(64), 0, dim3(kClusterBlocks)}, nullptr, out,
                  static_cast<ClusterMistake>(mistake));
  });
}

const char* multiply_ones_128(int32_t* out, int64_t mistake) {
  return guarded(
      [&] { launch_shared(&multiply_ones, dim3(1), dim3(128), 2048, nullptr, out, static_cast<Mistake>(mistake)); });
}

}  // extern "C"
