// Projection onto the residual stream: the residual is added to each block of float32 sums.
#include "cpu/residual.h"

#include "cpu/by_dtype.h"
#include "cpu/gemm.h"

namespace eagle::cpu {
namespace {

struct Target {
  int64_t first_row, rows, begin, end;
};

template <int L, class T>
EAGLE_INLINE void add_block(const ResidualProjection& p, const ProductBlock& block, const Target& to) {
  for (int64_t r = 0; r < to.rows; ++r) {
    const T* residual = reinterpret_cast<const T*>(p.residual[to.first_row + r]) + to.begin;
    T* out = static_cast<T*>(p.output) + (to.first_row + r) * p.size + to.begin;
    for_each_sixteen(to.end - to.begin, [&](int64_t o, int64_t count) EAGLE_INLINE_LAMBDA {
      store_first(out + o, load<L>(block.row(r) + o) + load_first<L>(residual + o, count), count);
    });
  }
}

template <int L>
EAGLE_INLINE void add_at(const ResidualProjection& p, const ProductBlock& block, const Target& to) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { add_block<L, decltype(element)>(p, block, to); });
}
EAGLE_AT_EACH_LEVEL(add, (const ResidualProjection& p, const ProductBlock& block, const Target& to), (p, block, to))

}  // namespace

void project_to_residual(const ResidualProjection& p, const ParallelFor& parallel_for) {
  for_each_product(p.dtype, p.weight, p.input, p.inner, [&](const Product& product, int64_t first_row) {
    product.for_each_block(p.size, parallel_for, [&](int64_t begin, int64_t end) {
      ProductBlock block;
      product.multiply(begin, end, block);
      add(p, block, {first_row, product.rows(), begin, end});
    });
  });
}

}  // namespace eagle::cpu
