// The only file that names the torch C++ API: its stable subset, torch >= 2.10.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/dtype.h"
#include "common/parallel.h"
#include "ops/check.h"

// Weak, so that a build with CUDA still imports next to a CPU-only torch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace eagle {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;

inline void* current_stream(const Tensor& t) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return stream;
}

// torch's thread pool, for CPU kernels.
inline ParallelFor torch_parallel_for() {
  return ParallelFor([](int64_t size, int64_t grain, ParallelBody body, void* context) {
    torch::stable::parallel_for(0, size, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
  });
}

inline DType float_dtype(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      return DType::kFloat32;
  }
}

inline Tensor empty_like_device(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

// Scratch memory for kernels on the device of `like`. It may die before they end: the allocator reuses it in the order
// of the stream.
inline Tensor workspace(const Tensor& like, int64_t bytes) {
  return torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
}

}  // namespace eagle
