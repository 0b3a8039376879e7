// Element types on the device, and rows of them read eight elements a lane.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>

#include "common/dtype.h"

namespace eagle::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// Calls body with a value of the element type.
template <class Body>
void dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat16:
      return body(__half{});
    case DType::kBFloat16:
      return body(__nv_bfloat16{});
  }
}

// The same where fp32 never comes: 16-bit types are those of the tensor cores.
template <class Body>
auto dispatch_halves(DType dtype, const Body& body) {
  return dtype == DType::kFloat16 ? body(__half{}) : body(__nv_bfloat16{});
}

constexpr int kOctet = 8;

// Eight consecutive elements: one 16-byte word of a 16-bit type, two of fp32.
template <class T>
struct alignas(16) Octet {
  T value[kOctet];
};

// A contiguous row.
template <class T>
struct Row {
  const T* data;
  int64_t size;
  bool aligned;  // data is a multiple of 16 bytes
};

template <class T>
__device__ inline Row<T> row_at(const void* data, int64_t offset, int64_t size) {
  const T* row = static_cast<const T*>(data) + offset;
  return {row, size, reinterpret_cast<uintptr_t>(row) % sizeof(uint4) == 0};
}

// Elements first..first + 7 of a row; those beyond its end are unspecified and not read.
template <class T>
__device__ inline Octet<T> load_octet(const Row<T>& row, int64_t first) {
  Octet<T> octet;
  if (row.aligned && first + kOctet <= row.size) {
#pragma unroll
    for (int word = 0; word < static_cast<int>(sizeof octet / sizeof(uint4)); ++word)
      reinterpret_cast<uint4*>(octet.value)[word] = reinterpret_cast<const uint4*>(row.data + first)[word];
  } else {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) octet.value[i] = first + i < row.size ? row.data[first + i] : T{};
  }
  return octet;
}

}  // namespace eagle::cuda
