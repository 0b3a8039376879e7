// Element types shared by the CPU and CUDA kernels. No torch headers here.
#pragma once
#include <cstdint>

namespace eagle {

enum class DType : int8_t { kFloat32, kFloat16, kBFloat16 };

inline int64_t size_of(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

}  // namespace eagle
