// linear on the CPU: blocks of outputs go to threads, each is rounded as soon as it is summed.
#include "common/linear.h"

#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/simd.h"

namespace eagle::cpu {
namespace {

struct Block {
  const float* values;  // [rows, Product::kMaxBlock]
  int64_t rows, first_output, outputs;
};

template <class T>
EAGLE_INLINE void store_typed(const LinearParams& p, int64_t first_row, const Block& block) {
  const T* bias = static_cast<const T*>(p.bias);
  for (int64_t r = 0; r < block.rows; ++r) {
    const float* values = block.values + r * Product::kMaxBlock;
    T* out = static_cast<T*>(p.output) + (first_row + r) * p.outputs + block.first_output;
    if (bias)
      for (int64_t o = 0; o < block.outputs; ++o)
        out[o] = from_float<T>(values[o] + to_float(bias[block.first_output + o]));
    else
      for (int64_t o = 0; o < block.outputs; ++o) out[o] = from_float<T>(values[o]);
  }
}

EAGLE_MULTIVERSION void store(const LinearParams& p, int64_t first_row, const Block& block) {
  switch (p.dtype) {
    case DType::kFloat32:
      return store_typed<float>(p, first_row, block);
    case DType::kFloat16:
      return store_typed<float16>(p, first_row, block);
    case DType::kBFloat16:
      return store_typed<bfloat16>(p, first_row, block);
  }
}

}  // namespace

void linear(const LinearParams& p, ParallelFor parallel_for) {
  for (int64_t first_row = 0; first_row < p.input.count; first_row += Product::kMaxRows) {
    const int64_t rows = std::min(Product::kMaxRows, p.input.count - first_row);
    Product product(p.dtype, rows, p.inner);
    for (int64_t r = 0; r < rows; ++r) product.set_row(r, p.input[first_row + r]);
    product.for_each_block(p.weight, p.outputs, parallel_for, [&](const float* values, int64_t begin, int64_t end) {
      store(p, first_row, {values, rows, begin, end - begin});
    });
  }
}

}  // namespace eagle::cpu
