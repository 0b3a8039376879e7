// A warp's tensor-core steps on the CPU, with the fragment layouts of the PTX ISA (ldmatrix, mma.m16n8k16).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace cuda_emulation {

struct Words {
  uint64_t of_lane[32];
};

inline Words exchange_all(uint64_t value, Where where) {
  Words words;
  std::copy_n(exchange(value, where), 32, words.of_lane);
  return words;
}

// Lanes 8i..8i+7 give the rows of matrix i; lane l gets two elements of row l / 4, or of column l / 4.
inline void load_matrices(uint32_t (&to)[4], uint32_t address, bool transposed, Where where) {
  if (address % 16 != 0 || address + 16 > dynamic_shared_bytes)
    throw std::runtime_error("cuda_emulation: ldmatrix's address is misaligned or out of bounds");
  const Words addresses = exchange_all(address, where);
  const unsigned outer = lane() / 4, inner = lane() % 4 * 2;
  for (unsigned i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (unsigned j = 0; j < 2; ++j) {
      const unsigned row = transposed ? inner + j : outer, column = transposed ? outer : inner + j;
      std::memcpy(&pair[j], dynamic_shared + addresses.of_lane[8 * i + row] + 2 * column, 2);
    }
    to[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
  exchange(0, where);  // nobody runs ahead before everyone has read
}

template <class T>
float element(uint32_t pair, int i) {
  const auto bits = static_cast<uint16_t>(pair >> 16 * i);
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __bfloat162float({bits});
  else
    return __half2float({__builtin_bit_cast(_Float16, bits)});
}

}  // namespace cuda_emulation

namespace eagle::cuda {

using cuda_emulation::Where;

inline void load_matrices(uint32_t (&to)[4], uint32_t address, Where where = Where::current()) {
  cuda_emulation::load_matrices(to, address, false, where);
}

inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t address, Where where = Where::current()) {
  cuda_emulation::load_matrices(to, address, true, where);
}

template <class T>
void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where where = Where::current()) {
  using cuda_emulation::element;
  const auto left = cuda_emulation::exchange_all(a[0] | static_cast<uint64_t>(a[1]) << 32, where);
  const auto right = cuda_emulation::exchange_all(a[2] | static_cast<uint64_t>(a[3]) << 32, where);
  const auto b = cuda_emulation::exchange_all(b0 | static_cast<uint64_t>(b1) << 32, where);
  for (int i = 0; i < 4; ++i) {
    const int row = cuda_emulation::lane() / 4 + i / 2 * 8, column = cuda_emulation::lane() % 4 * 2 + i % 2;
    float product = 0;
    for (int k = 0; k < 16; ++k) {
      const uint64_t of_a = (k < 8 ? left : right).of_lane[row % 8 * 4 + k % 8 / 2];
      const uint64_t of_b = b.of_lane[column * 4 + k % 8 / 2];
      product += element<T>(static_cast<uint32_t>(of_a >> 32 * (row / 8)), k % 2) *
                 element<T>(static_cast<uint32_t>(of_b >> 32 * (k / 8)), k % 2);
    }
    sum[i] += product;
  }
}

}  // namespace eagle::cuda
