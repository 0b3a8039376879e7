// Picks how a product is computed and launches it with a given epilogue.
#pragma once
#include "cuda/device.cuh"
#include "cuda/gemm_plain.cuh"
#include "cuda/gemm_tensor.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {

// Tensor cores take 16-bit inputs; the weight reaches them in copies of 16 bytes.
inline bool fits_tensor_cores(const GemmParams& g) {
  const int64_t elements = g.weight.scale ? 16 : 8;
  return g.dtype != DType::kFloat32 && g.inner % elements == 0 && reinterpret_cast<uintptr_t>(g.weight.data) % 16 == 0;
}

// How a product is divided over its inner dimension.
struct Splits {
  int64_t count = 1;
  bool clustered = false;  // whether the blocks of all ranges form a cluster
};

template <class Compute, class Epilogue>
void launch_gemm(const GemmParams& g, const Epilogue& epilogue, Splits splits, void* stream) {
  const int64_t output_blocks = g.gated ? ceil_div(g.outputs / 2, kGemmPairs) : ceil_div(g.outputs, kGemmOutputs);
  const dim3 grid(ceil_div(g.input.count, Compute::kRows), output_blocks, splits.count);
  const dim3 cluster(1, 1, splits.clustered ? splits.count : 1);
  launch_shaped(gemm_kernel<Compute, Epilogue>, {grid, kGemmThreads, Compute::kSharedBytes, cluster}, stream, g,
                epilogue);
}

template <class T, class W, class Epilogue>
void launch_typed_gemm(const GemmParams& g, const Epilogue& epilogue, Splits splits, void* stream) {
  if constexpr (sizeof(T) == 2) {
    if (fits_tensor_cores(g)) {
      if (g.input.count <= 8) return launch_gemm<TensorGemm<T, W, 1>>(g, epilogue, splits, stream);
      if (g.input.count <= 16) return launch_gemm<TensorGemm<T, W, 2>>(g, epilogue, splits, stream);
      if (g.input.count <= 32) return launch_gemm<TensorGemm<T, W, 4>>(g, epilogue, splits, stream);
      return launch_gemm<TensorGemm<T, W, 8>>(g, epilogue, splits, stream);
    }
  }
  launch_gemm<PlainGemm<T, W>>(g, epilogue, splits, stream);
}

// Epilogue is a device functor on GemmTile.
template <class Epilogue>
void launch_any_gemm(const GemmParams& g, const Epilogue& epilogue, Splits splits, void* stream) {
  dispatch(g.dtype, [&](auto element) {
    using T = decltype(element);
    if (g.weight.scale) return launch_typed_gemm<T, Fp8>(g, epilogue, splits, stream);
    launch_typed_gemm<T, T>(g, epilogue, splits, stream);
  });
}

}  // namespace eagle::cuda
