// Kernels of one mistake each, which the machine must name: for ctypes as in harness.cpp.
#include <cuda/cp_async.cuh>
#include <cuda/dependent.cuh>
#include <cuda/dynamic_shared.cuh>
#include <cuda/launch.cuh>
#include <cuda/reduce.cuh>

#include "../cuda_emulation/launchers.h"

namespace {

using namespace eagle::cuda;

constexpr int kThreads = 64;

// By the numbers that test_ptx_machine.py gives them.
enum Mistake : int64_t {
  kNone,
  kBeyondTensor,
  kMisaligned,
  kBeyondShared,
  kUnwritten,
  kWarpRace,
  kReadThenWritten,
  kCopyNotAwaited,
  kCopyOfOthers,
  kBarrierOfSome,
  kShuffleOfSome,
};

// Reverses kThreads numbers, with shared memory of as many.
template <Mistake kMistake>
__global__ void reverse(const int32_t* in, int32_t* out) {
  wait_for_earlier_kernels();
  auto* tile = reinterpret_cast<int32_t*>(dynamic_shared());
  const int thread = static_cast<int>(threadIdx.x);
  if (kMistake == kMisaligned) *reinterpret_cast<int32_t*>(reinterpret_cast<char*>(out) + 2) = thread;
  if (kMistake == kCopyNotAwaited || kMistake == kCopyOfOthers) {
    if (thread % 2 == 0) copy8_async(shared_address(tile + thread), in + thread);
    commit_copies();
    if (kMistake == kCopyOfOthers) wait_copies<0>();
  } else if (kMistake != kUnwritten || thread != 40) {
    tile[thread + (kMistake == kBeyondShared)] = in[thread];
  }
  if (kMistake == kBarrierOfSome ? warp_id() == 0 : kMistake != kCopyOfOthers) __syncthreads();
  if (kMistake == kWarpRace) {
    tile[thread] = -in[thread];
    out[thread] = tile[thread ^ 1];
  } else if (kMistake == kBarrierOfSome) {
    out[thread] = tile[thread];
  } else if (kMistake == kShuffleOfSome) {
    if (thread % 2 == 0) out[thread] = __shfl_sync(kAllLanes, tile[thread], 0);
  } else {
    out[thread + (kMistake == kBeyondTensor)] = tile[kThreads - 1 - thread];
  }
  if (kMistake == kReadThenWritten) tile[thread] = 0;
}

template <Mistake kMistake>
const char* run(const int32_t* in, int32_t* out) {
  return guarded([&] {
    launch_shared(&reverse<kMistake>, dim3(1), dim3(kThreads), kThreads * sizeof(int32_t), nullptr, in, out);
  });
}

enum GlobalMistake : int64_t { kNoGlobalMistake, kNeverWritten, kNoBarrier, kReadOfOthers, kWriteOfOthers, kPlainRead };

// Each block passes its threads' numbers to their neighbours through a workspace, and all count the blocks.
__global__ void pass_on(int32_t* out, int32_t* workspace, int32_t* count, GlobalMistake mistake) {
  wait_for_earlier_kernels();
  const int block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  int32_t* mine = workspace + block * kThreads;
  if (mistake != kNeverWritten || thread != 3) mine[thread] = thread;
  if (mistake != kNoBarrier) __syncthreads();
  out[block * kThreads + thread] = mine[thread ^ 1];
  if (mistake == kReadOfOthers && block == 1) out[kThreads + thread] = workspace[thread];
  if (mistake == kWriteOfOthers) out[thread] = thread;
  if (thread == 0) atomicAdd(count, 1);
  const volatile int32_t& counted = *count;
  if (mistake == kPlainRead ? *count > 2 : counted > 2) out[block * kThreads + thread] = 0;
}

}  // namespace

extern "C" const char* reverse_wrongly(const int32_t* in, int32_t* out, int64_t mistake) {
  static constexpr decltype(&run<kNone>) kRuns[] = {
      &run<kNone>,         &run<kBeyondTensor>,  &run<kMisaligned>,      &run<kBeyondShared>,
      &run<kUnwritten>,    &run<kWarpRace>,      &run<kReadThenWritten>, &run<kCopyNotAwaited>,
      &run<kCopyOfOthers>, &run<kBarrierOfSome>, &run<kShuffleOfSome>,
  };
  return kRuns[mistake](in, out);
}

extern "C" const char* pass_on_wrongly(int32_t* out, int32_t* count, int64_t mistake) {
  return guarded([&] {
    const Workspace workspace(2 * kThreads * sizeof(int32_t));
    launch(&pass_on, dim3(2), dim3(kThreads), nullptr, out, static_cast<int32_t*>(workspace.data()), count,
           static_cast<GlobalMistake>(mistake));
  });
}
