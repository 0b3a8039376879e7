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
  static constexpr int kStages = 4;
  static constexpr int kWeightBytes = kGemmOutputs * kGemmStep * static_cast<int>(sizeof(W));
  static constexpr int kStageBytes = kWeightBytes + kRows * kGemmStep * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static_assert(sizeof(T) == 2);
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

  struct WeightCopier : Share<W> {
    using Share<W>::kChunk, Share<W>::kRowsPerCopy, Share<W>::kStepBytes, Share<W>::row, Share<W>::chunk;
    static constexpr int kCopies = kGemmOutputs / kRowsPerCopy;
    static_assert(kGemmOutputs % kRowsPerCopy == 0);

    const W *origin, *weight;
    int64_t row_step, column, end;
    int rows;  // of the tile, counted from this thread's first row
    uint32_t to;

    __device__ WeightCopier(const GemmParams& g, const GemmTile& tile, uint32_t stages) {
      origin = static_cast<const W*>(g.weight.data);
      weight = origin + (tile.first_output + row()) * g.inner;
      row_step = kRowsPerCopy * g.inner;
      column = tile.inner_begin + chunk() * kChunk;
      end = tile.inner_end;
      rows = static_cast<int>(tile.outputs) - row();
      to = stages + Stage<T, W>::weight_offset(row(), chunk());
    }

    // The next kGemmStep elements of every row; zeros past the ends.
    __device__ void copy(int stage, int64_t step) const {
      const int64_t k = column + step * kGemmStep;
      const bool inside = k < end;
      const W* from = weight + (inside ? k : 0);
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const bool read = inside && i * kRowsPerCopy < rows;
        copy16_async(to + stage * kStageBytes + i * kStepBytes, read ? from + i * row_step : origin, read);
      }
    }
  };

  struct InputCopier : Share<T> {
    using Share<T>::kChunk, Share<T>::kRowsPerCopy, Share<T>::kStepBytes, Share<T>::row, Share<T>::chunk;
    static constexpr int kCopies = (kRows + kRowsPerCopy - 1) / kRowsPerCopy;

    const T* input[kCopies];
    int64_t column, end;
    int rows;
    bool aligned;
    uint32_t to;

    __device__ InputCopier(const GemmParams& g, const GemmTile& tile, uint32_t stages) {
      column = tile.inner_begin + chunk() * kChunk;
      end = tile.inner_end;
      rows = static_cast<int>(tile.rows) - row();
      aligned = true;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const int64_t wanted = min(static_cast<int64_t>(row() + i * kRowsPerCopy), tile.rows - 1);
        input[i] = reinterpret_cast<const T*>(g.input[tile.first_row + wanted]);
        aligned &= reinterpret_cast<uintptr_t>(input[i]) % 16 == 0;
      }
      to = stages + kWeightBytes + input_offset(row(), chunk());
    }

    __device__ void copy(int stage, int64_t step) const {
      const int64_t k = column + step * kGemmStep;
      const bool inside = k < end;
      const int64_t from = inside ? k : 0;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        if (kRows % kRowsPerCopy != 0 && row() + i * kRowsPerCopy >= kRows) continue;
        const uint32_t at = to + stage * kStageBytes + i * kStepBytes;
        const bool read = inside && i * kRowsPerCopy < rows;
        if (aligned)
          copy16_async(at, input[i] + from, read);
        else
          copy16_gathered(at, reinterpret_cast<const uint16_t*>(input[i] + from), read);
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
    if (threadIdx.x >= tile.outputs) return;
    const W* row = static_cast<const W*>(g.weight.data) + (tile.first_output + threadIdx.x) * g.inner;
    for (int64_t k = 0; k < elements; k += kLineBytes / sizeof(W)) prefetch_line(row + tile.inner_begin + k);
  }

  static __device__ void run(const GemmParams& g, const GemmTile& tile, char* shared) {
    const WeightCopier weights(g, tile, shared_address(shared));
    const InputCopier inputs(g, tile, shared_address(shared));
    const int64_t steps = (tile.inner_end - tile.inner_begin + kGemmStep - 1) / kGemmStep;
    WarpSums<kRowTiles> sums = {};
    const auto copy = [&](int64_t step) {
      if (step < steps) {
        weights.copy(static_cast<int>(step % kStages), step);
        inputs.copy(static_cast<int>(step % kStages), step);
      }
      commit_copies();  // empty groups keep the count right at the end
    };
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) copy(step);
    for (int64_t step = 0; step < steps; ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();  // everyone's part of this step has landed, and no one still reads the stage refilled next
      copy(step + kStages - 1);
      const char* stage = shared + step % kStages * kStageBytes;
      Stage<T, W>::template multiply<kRowTiles>(stage, stage + kWeightBytes, sums);
    }
    wait_copies<0>();
    __syncthreads();  // the stages are free: the finished tile takes their place
    store(g, tile, sums);
  }
};

}  // namespace eagle::cuda
