// One stage of a product on tensor cores: how its weights lie in shared memory, and how a warp multiplies them.
#pragma once
#include "cuda/cp_async.cuh"
#include "cuda/fp8.cuh"
#include "cuda/gemm_tile.cuh"
#include "cuda/mma.cuh"
#include "cuda/reduce.cuh"
#include "cuda/swizzle.cuh"

namespace eagle::cuda {

constexpr int kWarpOutputs = kGemmOutputs / (kGemmThreads / kWarp);
constexpr int kWeightTiles = kWarpOutputs / 16;  // of 16 outputs, per warp
static_assert(kWarpOutputs % 16 == 0 && kGemmStep == 64);

// A warp's sums: for its tiles of 16 outputs and those of 8 input rows, four a lane.
template <int kRowTiles>
using WarpSums = float[kWeightTiles][kRowTiles][4];

// Input rows are eight chunks of 16 bytes long.
__device__ inline uint32_t input_offset(int row, int chunk) { return swizzled(row, chunk); }

// Inputs of type T, weights of type W. multiply: this warp's outputs times all input rows.
template <class T, class W>
struct Stage;

// Both operands come from shared memory in the order that mma wants.
template <class T>
struct Stage<T, T> {
  static __device__ uint32_t weight_offset(int row, int chunk) { return swizzled(row, chunk); }

  template <int kRowTiles>
  static __device__ void multiply(const char* weights, const char* inputs, WarpSums<kRowTiles>& sums) {
    const int lane = threadIdx.x % kWarp, first_output = threadIdx.x / kWarp * kWarpOutputs;
    const uint32_t weights_at = shared_address(weights), inputs_at = shared_address(inputs);
#pragma unroll
    for (int chunk = 0; chunk < 8; chunk += 4) {  // two steps of 16 elements
      uint32_t w[kWeightTiles][2][4];
#pragma unroll
      for (int m = 0; m < kWeightTiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          load_matrices(w[m][half],
                        weights_at + weight_offset(first_output + m * 16 + lane % 16, chunk + half * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        uint32_t x[4];
        load_matrices(x, inputs_at + input_offset(n * 8 + lane % 8, chunk + lane / 8));
#pragma unroll
        for (int m = 0; m < kWeightTiles; ++m) {
          multiply_add<T>(sums[m][n], w[m][0], x[0], x[1]);
          multiply_add<T>(sums[m][n], w[m][1], x[2], x[3]);
        }
      }
    }
  }
};

// A lane takes a quarter of its rows, 16 consecutive elements, and hands them to mma four at a time: which elements
// meet in a step does not matter, as long as both operands agree. Plain 16-byte loads then find everything, without
// conflicts.
template <class T>
struct Stage<T, Fp8> {
  static constexpr int kSteps = 4;

  static __device__ uint32_t weight_offset(int row, int chunk) { return (row * 4 + chunk) * 16; }

  template <int kRowTiles>
  static __device__ void multiply(const char* weights, const char* inputs, WarpSums<kRowTiles>& sums) {
    const int lane = threadIdx.x % kWarp, first_output = threadIdx.x / kWarp * kWarpOutputs;
    uint32_t w[kWeightTiles][kSteps][4];
#pragma unroll
    for (int m = 0; m < kWeightTiles; ++m) {
      const int row = first_output + m * 16 + lane / 4;
      uint32_t upper[kSteps], lower[kSteps];
      load16(upper, weights + weight_offset(row, lane % 4));
      load16(lower, weights + weight_offset(row + 8, lane % 4));
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        w[m][step][0] = widen<T, 0>(upper[step]);
        w[m][step][1] = widen<T, 0>(lower[step]);
        w[m][step][2] = widen<T, 1>(upper[step]);
        w[m][step][3] = widen<T, 1>(lower[step]);
      }
    }
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
      uint32_t x[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half)
        load16(x[half], inputs + input_offset(n * 8 + lane / 4, lane % 4 * 2 + half));
#pragma unroll
      for (int m = 0; m < kWeightTiles; ++m)
#pragma unroll
        for (int step = 0; step < kSteps; ++step)
          multiply_add<T>(sums[m][n], w[m][step], x[step / 2][step % 2 * 2], x[step / 2][step % 2 * 2 + 1]);
    }
  }

  static __device__ void load16(uint32_t (&to)[4], const char* from) {
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    to[0] = words.x, to[1] = words.y, to[2] = words.z, to[3] = words.w;
  }
};

}  // namespace eagle::cuda
