// linear on the CPU: blocks of outputs go to threads, each is rounded as soon as it is summed.
#include "common/linear.h"

#include "cpu/by_dtype.h"
#include "cpu/gemm.h"

namespace eagle::cpu {
namespace {

struct Target {
  int64_t first_row, rows, begin, end;
};

template <int L, class T>
EAGLE_INLINE void store_block(const LinearParams& p, const ProductBlock& block, const Target& to) {
  float bias[Product::kMaxBlock] = {};
  for (int64_t o = 0; p.bias && o < to.end - to.begin; ++o)
    bias[o] = to_float(static_cast<const T*>(p.bias)[to.begin + o]);
  for (int64_t r = 0; r < to.rows; ++r) {
    T* out = static_cast<T*>(p.output) + (to.first_row + r) * p.outputs + to.begin;
    for_each_sixteen(to.end - to.begin, [&](int64_t o, int64_t count) EAGLE_INLINE_LAMBDA {
      store_first(out + o, load<L>(block.row(r) + o) + load<L>(bias + o), count);
    });
  }
}

template <int L>
EAGLE_INLINE void store_at(const LinearParams& p, const ProductBlock& block, const Target& to) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { store_block<L, decltype(element)>(p, block, to); });
}
EAGLE_AT_EACH_LEVEL(store, (const LinearParams& p, const ProductBlock& block, const Target& to), (p, block, to))

}  // namespace

void linear(const LinearParams& p, ParallelFor parallel_for) {
  for_each_product(p.dtype, p.weight, p.input, p.inner, [&](const Product& product, int64_t first_row) {
    product.for_each_block(p.outputs, parallel_for, [&](int64_t begin, int64_t end) {
      ProductBlock block;
      product.multiply(begin, end, block);
      store(p, block, {first_row, product.rows(), begin, end});
    });
  });
}

}  // namespace eagle::cpu
