// Kernels of one mistake each, which the machine must name: for ctypes as in harness.cpp.
#include <cuda/cp_async.cuh>
#include <cuda/dependent.cuh>
#include <cuda/dynamic_shared.cuh>
#include <cuda/launch.cuh>
#include <cuda/reduce.cuh>
#include <stdexcept>
#include <string>

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
  static std::string message;
  try {
    launch_shared(&reverse<kMistake>, dim3(1), dim3(kThreads), kThreads * sizeof(int32_t), nullptr, in, out);
    return nullptr;
  } catch (const std::exception& failure) {
    return (message = failure.what()).c_str();
  }
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
