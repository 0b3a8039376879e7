// A tile of the product on tensor cores: weights stream through a ring of shared-memory stages.
//
// The weight is the left operand, 16 outputs by 16 elements of `inner`, and the few input rows are the columns of the
// right one, eight at a time, so that ten rows cost two columns of products and not a tile of 64 or 128.
#pragma once
#include "cuda/convert.cuh"
#include "cuda/cp_async.cuh"
#include "cuda/gemm_tile.cuh"
#include "cuda/mma.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

template <class T, int kRowTiles>
struct TensorGemm {
  static constexpr int kRows = 8 * kRowTiles;
  static constexpr int kStages = 4;
  static constexpr int kChunk = 8;                                // elements in 16 bytes
  static constexpr int kRowChunks = kGemmStep / kChunk;           // of a row within a stage
  static constexpr int kRowsPerCopy = kGemmThreads / kRowChunks;  // a copy instruction of the block covers these
  static constexpr int kInputCopies = (kRows + kRowsPerCopy - 1) / kRowsPerCopy;
  static constexpr int kWarpOutputs = kGemmOutputs / (kGemmThreads / kWarp);
  static constexpr int kWeightTiles = kWarpOutputs / 16;  // of 16 outputs, per warp
  static constexpr int kWeightBytes = kGemmOutputs * kGemmStep * 2;
  static constexpr int kStageBytes = kWeightBytes + kRows * kGemmStep * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(sizeof(T) == 2 && kRowChunks == 8 && kGemmOutputs % kRowsPerCopy == 0 && kWarpOutputs % 16 == 0);
  static_assert(kRows * kTilePitch * 4 <= kSharedBytes, "the finished tile reuses the stages");

  // What a thread copies: 16 bytes of every kRowsPerCopy-th weight row, and likewise of the input rows.
  struct Copier {
    const T *origin, *weight;
    const T* input[kInputCopies];
    int64_t inner, row_step, column, end;
    int weight_rows, input_rows;  // of the tile, counted from this thread's first row
    bool aligned;                 // input rows
    uint32_t to;

    __device__ Copier(const GemmParams& g, const GemmTile& tile, uint32_t shared) {
      const int row = threadIdx.x / kRowChunks, chunk = threadIdx.x % kRowChunks;
      inner = g.inner;
      row_step = kRowsPerCopy * g.inner;
      column = tile.inner_begin + chunk * kChunk;
      end = tile.inner_end;
      origin = static_cast<const T*>(g.weight);
      weight = origin + (tile.first_output + row) * inner;
      weight_rows = static_cast<int>(tile.outputs) - row;
      input_rows = static_cast<int>(tile.rows) - row;
#pragma unroll
      for (int i = 0; i < kInputCopies; ++i) {
        const int64_t wanted = min(static_cast<int64_t>(row + i * kRowsPerCopy), tile.rows - 1);
        input[i] = reinterpret_cast<const T*>(g.input[tile.first_row + wanted]);
      }
      aligned = true;
#pragma unroll
      for (int i = 0; i < kInputCopies; ++i) aligned &= reinterpret_cast<uintptr_t>(input[i]) % 16 == 0;
      to = shared + swizzled<kRowChunks>(row, chunk);  // rows kRowsPerCopy apart are swizzled alike
      static_assert(kRowsPerCopy % 8 == 0);
    }

    // The next kGemmStep elements of every row; zeros past the ends.
    __device__ void copy(int stage, int64_t step) const {
      const int64_t k = column + step * kGemmStep;
      const bool inside = k < end;
      const int64_t from = inside ? k : 0;
      const uint32_t weights = to + stage * kStageBytes, inputs = weights + kWeightBytes;
#pragma unroll
      for (int i = 0; i < kGemmOutputs / kRowsPerCopy; ++i) {
        const bool read = inside && i * kRowsPerCopy < weight_rows;
        const T* row = weight + i * row_step + from;
        copy16_async(weights + i * kRowsPerCopy * kRowChunks * 16, read ? row : origin, read);
      }
#pragma unroll
      for (int i = 0; i < kInputCopies; ++i) {
        if (kRows % kRowsPerCopy != 0 && threadIdx.x / kRowChunks + i * kRowsPerCopy >= kRows) continue;
        const uint32_t at = inputs + i * kRowsPerCopy * kRowChunks * 16;
        const bool read = inside && i * kRowsPerCopy < input_rows;
        if (aligned)
          copy16_async(at, input[i] + from, read);
        else
          copy16_gathered(at, reinterpret_cast<const uint16_t*>(input[i] + from), read);
      }
    }
  };

  using Sums = float[kWeightTiles][kRowTiles][4];

  // One stage's products: this warp's outputs times all input rows.
  static __device__ void multiply_stage(uint32_t weights, Sums& sums) {
    const int lane = threadIdx.x % kWarp, first_output = threadIdx.x / kWarp * kWarpOutputs;
    const uint32_t inputs = weights + kWeightBytes;
#pragma unroll
    for (int chunk = 0; chunk < kRowChunks; chunk += 4) {  // two steps of 16 elements
      uint32_t w[kWeightTiles][2][4];
#pragma unroll
      for (int m = 0; m < kWeightTiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          load_matrices(w[m][half], weights + swizzled<kRowChunks>(first_output + m * 16 + lane % 16,
                                                                   chunk + half * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        uint32_t x[4];
        load_matrices(x, inputs + swizzled<kRowChunks>(n * 8 + lane % 8, chunk + lane / 8));
#pragma unroll
        for (int m = 0; m < kWeightTiles; ++m) {
          multiply_add<T>(sums[m][n], w[m][0], x[0], x[1]);
          multiply_add<T>(sums[m][n], w[m][1], x[2], x[3]);
        }
      }
    }
  }

  static __device__ void store(const Sums& sums, float* values) {
    const int lane = threadIdx.x % kWarp, first_output = threadIdx.x / kWarp * kWarpOutputs;
#pragma unroll
    for (int m = 0; m < kWeightTiles; ++m)
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          values[(n * 8 + lane % 4 * 2 + i % 2) * kTilePitch + first_output + m * 16 + lane / 4 + i / 2 * 8] =
              sums[m][n][i];
  }

  static __device__ void run(const GemmParams& g, const GemmTile& tile, char* shared) {
    const uint32_t stages = shared_address(shared);
    const Copier copier(g, tile, stages);
    const int64_t steps = (tile.inner_end - tile.inner_begin + kGemmStep - 1) / kGemmStep;
    Sums sums = {};
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (stage < steps) copier.copy(stage, stage);
      commit_copies();  // empty groups keep the count right at the end
    }
    for (int64_t step = 0; step < steps; ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();  // everyone's part of this step has landed, and no one still reads the stage refilled next
      const int64_t next = step + kStages - 1;
      if (next < steps) copier.copy(static_cast<int>(next % kStages), next);
      commit_copies();
      multiply_stage(stages + static_cast<uint32_t>(step % kStages) * kStageBytes, sums);
    }
    wait_copies<0>();
    __syncthreads();  // the stages are free: the finished tile takes their place
    store(sums, tile.values);
  }
};

}  // namespace eagle::cuda
