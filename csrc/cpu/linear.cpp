// linear on the CPU: blocks of outputs go to threads, each is rounded as soon as it is summed.
#include "common/linear.h"

#include "cpu/by_dtype.h"
#include "cpu/gemm.h"

namespace eagle::cpu {
namespace {

struct Target {
  int64_t first_row, rows, begin, end;
};

template <class T>
EAGLE_INLINE void store_block(const LinearParams& p, const ProductBlock& block, const Target& to) {
  const T* bias = static_cast<const T*>(p.bias) + to.begin;
  for (int64_t r = 0; r < to.rows; ++r) {
    const float* sums = block.row(r);
    T* out = static_cast<T*>(p.output) + (to.first_row + r) * p.outputs + to.begin;
    if (p.bias)
      for (int64_t o = 0; o < to.end - to.begin; ++o) out[o] = from_float<T>(sums[o] + to_float(bias[o]));
    else
      for (int64_t o = 0; o < to.end - to.begin; ++o) out[o] = from_float<T>(sums[o]);
  }
}

EAGLE_MULTIVERSION void store(const LinearParams& p, const ProductBlock& block, const Target& to) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { store_block<decltype(element)>(p, block, to); });
}

}  // namespace

void linear(const LinearParams& p, ParallelFor parallel_for) {
  for_each_product(p.dtype, p.input, p.inner, [&](const Product& product, int64_t first_row) {
    product.for_each_block(p.outputs, parallel_for, [&](int64_t begin, int64_t end) {
      ProductBlock block;
      product.multiply(p.weight, begin, end, block);
      store(p, block, {first_row, product.rows(), begin, end});
    });
  });
}

}  // namespace eagle::cpu
