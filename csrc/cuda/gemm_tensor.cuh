// A tile of the product on tensor cores: weights stream through a ring of shared-memory stages.
//
// The weight is the left operand, 16 outputs by 16 elements of `inner`, and the few input rows are the columns of the
// right one, eight at a time, so that ten rows cost two columns of products and not a tile of 64 or 128.
#pragma once
#include "cuda/convert.cuh"
#include "cuda/gemm_stage.cuh"

namespace eagle::cuda {

// T: input elements, W: those of the weight, T or Fp8.
template <class T, class W, int kRowTiles>
struct TensorGemm {
  static constexpr int kRows = 8 * kRowTiles;
  static constexpr int kStages = sizeof(W) == 1 ? 6 : 4;  // half the bytes a stage, so more of them
  static constexpr int kWeightBytes = kGemmOutputs * kGemmStep * static_cast<int>(sizeof(W));
  static constexpr int kStageBytes = kWeightBytes + kRows * kGemmStep * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(sizeof(T) == 2 && kSharedBytes <= 99 << 10, "what compute capability 8.6 gives a block");
  static_assert(kRows * kTilePitch * 4 <= kSharedBytes, "the finished tile reuses the stages");

  // How threads share out the rows of a stage: each takes 16 bytes of every kRowsPerCopy-th row.
  template <class Element>
  struct Share {
    static constexpr int kChunk = 16 / sizeof(Element);             // elements in 16 bytes
    static constexpr int kRowChunks = kGemmStep / kChunk;           // of a row within a stage
    static constexpr int kRowsPerCopy = kGemmThreads / kRowChunks;  // a copy instruction of the block covers these
    static constexpr int kStepBytes = kRowsPerCopy * kRowChunks * 16;
    static_assert(kRowsPerCopy % 8 == 0, "rows that far apart are swizzled alike");

    static __device__ int row() { return threadIdx.x / kRowChunks; }
    static __device__ int chunk() { return threadIdx.x % kRowChunks; }
  };

  // How many steps the elements from `begin` to before `end` of a row take.
  static __device__ int steps(int64_t begin, int64_t end) {
    return static_cast<int>((end - begin + kGemmStep - 1) / kGemmStep);
  }

  // Copiers take the steps of the tile one after another, so that pointers only move on.
  struct WeightCopier : Share<W> {
    using Share<W>::kChunk, Share<W>::kRowsPerCopy, Share<W>::kStepBytes, Share<W>::row, Share<W>::chunk;
    static constexpr int kCopies = kGemmOutputs / kRowsPerCopy;
    static constexpr int kSpan = 2 * kGemmStep * sizeof(W);  // of a row: this step's and the next one's
    static_assert(kGemmOutputs % kRowsPerCopy == 0);

    const W* weight[kCopies];
    int end;  // the first step that finds this thread's part behind the rows' end
    uint32_t to;

    __device__ WeightCopier(const GemmParams& g, const GemmTile& tile, uint32_t stages) {
      const int64_t column = tile.inner_begin + chunk() * kChunk;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const int64_t weight_row = tile.weight_row(g, row() + i * kRowsPerCopy);
        weight[i] = static_cast<const W*>(g.weight.data) + weight_row * g.inner + column;
      }
      end = steps(column, tile.inner_end);
      to = stages + Stage<T, W>::weight_offset(row(), chunk());
    }

    // The next kGemmStep elements of every row; zeros past the end.
    __device__ void copy(int stage, int step) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        copy16_streamed<kSpan>(to + stage + i * kStepBytes, weight[i], step < end);
        weight[i] += kGemmStep;
      }
    }
  };

  struct InputCopier : Share<T> {
    using Share<T>::kChunk, Share<T>::kRowsPerCopy, Share<T>::kStepBytes, Share<T>::row, Share<T>::chunk;
    static constexpr int kCopies = (kRows + kRowsPerCopy - 1) / kRowsPerCopy;

    const T* input[kCopies];
    int end[kCopies];  // as above; at once for rows that do not exist
    bool aligned;
    uint32_t to;

    __device__ InputCopier(const GemmParams& g, const GemmTile& tile, uint32_t stages) {
      const int64_t column = tile.inner_begin + chunk() * kChunk;
      aligned = true;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const int64_t wanted = row() + i * kRowsPerCopy, last = tile.rows - 1;
        input[i] = reinterpret_cast<const T*>(g.input[tile.first_row + min(wanted, last)]) + column;
        end[i] = wanted <= last ? steps(column, tile.inner_end) : 0;
        aligned &= reinterpret_cast<uintptr_t>(input[i]) % 16 == 0;
      }
      to = stages + kWeightBytes + input_offset(row(), chunk());
    }

    __device__ void copy(int stage, int step) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        if (kRows % kRowsPerCopy != 0 && row() + i * kRowsPerCopy >= kRows) continue;
        const uint32_t at = to + stage + i * kStepBytes;
        if (aligned)
          copy16_async(at, input[i], step < end[i]);
        else
          copy16_gathered(at, reinterpret_cast<const uint16_t*>(input[i]), step < end[i]);
        input[i] += kGemmStep;
      }
    }
  };

  static __device__ void store(const GemmParams& g, const GemmTile& tile, const WarpSums<kRowTiles>& sums) {
    const int lane = threadIdx.x % kWarp, first_output = threadIdx.x / kWarp * kWarpOutputs;
#pragma unroll
    for (int m = 0; m < kWeightTiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int output = first_output + m * 16 + lane / 4 + half * 8;
        const float scale = tile.scale(g, output);
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            tile.values[(n * 8 + lane % 4 * 2 + i) * kTilePitch + output] = sums[m][n][half * 2 + i] * scale;
      }
  }

  // The weights that the first stages will take, a row a thread.
  static __device__ void prefetch(const GemmParams& g, const GemmTile& tile) {
    static_assert(kGemmThreads == kGemmOutputs);
    const int64_t first = (kStages - 1) * kGemmStep, elements = min(first, tile.inner_end - tile.inner_begin);
    const W* row = static_cast<const W*>(g.weight.data) + tile.weight_row(g, threadIdx.x) * g.inner;
    for (int64_t k = 0; k < elements; k += kLineBytes / sizeof(W)) prefetch_line(row + tile.inner_begin + k);
  }

  static __device__ void run(const GemmParams& g, const GemmTile& tile, char* shared) {
    WeightCopier weights(g, tile, shared_address(shared));
    InputCopier inputs(g, tile, shared_address(shared));
    const int end = steps(tile.inner_begin, tile.inner_end);
    WarpSums<kRowTiles> sums = {};
    const auto copy = [&](int stage, int step) {
      if (step < end) {
        weights.copy(stage, step);
        inputs.copy(stage, step);
      }
      commit_copies();  // empty groups keep the count right at the end
    };
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) copy(step * kStageBytes, step);
    int stage = 0, previous = (kStages - 1) * kStageBytes;  // where the operands of this step and of the last one lie
    for (int step = 0; step < end; ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();  // everyone's part of this step has landed, and no one still reads the stage refilled next
      copy(previous, step + kStages - 1);
      Stage<T, W>::template multiply<kRowTiles>(shared + stage, shared + stage + kWeightBytes, sums);
      previous = stage;
      stage = stage + kStageBytes == kSharedBytes ? 0 : stage + kStageBytes;
    }
    wait_copies<0>();
    __syncthreads();  // the stages are free: the finished tile takes their place
    store(g, tile, sums);
  }
};

}  // namespace eagle::cuda
