// The only file that names the torch C++ API: its stable subset, torch >= 2.10.
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <vector>

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

// A contiguous tensor on the device of `like`, not initialised. Not by stable::new_empty, which has the dispatcher look
// up an operator by its name and box every argument, each time.
inline Tensor empty_like_device(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape, ScalarType dtype) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0; stride *= std::max<int64_t>(shape[d], 1)) strides[d] = stride;
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  const auto dtype_code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(shape.size(), shape.data(), strides.data(), dtype_code, device_type,
                                                  like.get_device_index(), &handle));
  return Tensor(handle);
}

// Scratch memory for kernels on the device of `like`. It may die before they end: the allocator reuses it in the order
// of the stream.
inline Tensor workspace(const Tensor& like, int64_t bytes) {
  return empty_like_device(like, {bytes}, ScalarType::Byte);
}

}  // namespace eagle
