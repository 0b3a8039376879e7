// draft_mlp on the CPU: matching blocks of gate and up meet in the cache, then the projection down with its residual.
#include "common/draft_mlp.h"

#include <vector>

#include "cpu/by_dtype.h"
#include "cpu/exponential.h"
#include "cpu/gemm.h"
#include "cpu/residual.h"

namespace eagle::cpu {
namespace {

struct Target {
  void* activation;  // [rows, intermediate]
  int64_t intermediate, first_row, rows, begin, end;
};

template <int L, class T>
EAGLE_INLINE void gate_block(const ProductBlock& gate, const ProductBlock& up, const Target& to) {
  for (int64_t r = 0; r < to.rows; ++r) {
    T* out = static_cast<T*>(to.activation) + (to.first_row + r) * to.intermediate + to.begin;
    for_each_sixteen(to.end - to.begin, [&](int64_t o, int64_t count) EAGLE_INLINE_LAMBDA {
      store_first(out + o, silu(load<L>(gate.row(r) + o)) * load<L>(up.row(r) + o), count);
    });
  }
}

template <int L>
EAGLE_INLINE void activate_at(DType dtype, const ProductBlock& gate, const ProductBlock& up, const Target& to) {
  by_dtype(dtype, [&](auto element) EAGLE_INLINE_LAMBDA { gate_block<L, decltype(element)>(gate, up, to); });
}
EAGLE_AT_EACH_LEVEL(activate, (DType dtype, const ProductBlock& gate, const ProductBlock& up, const Target& to),
                    (dtype, gate, up, to))

}  // namespace

void draft_mlp(const DraftMlpParams& p, ParallelFor parallel_for) {
  const int64_t activation_bytes = p.intermediate * size_of(p.dtype);
  std::vector<char> activation(p.normed.count * activation_bytes);
  for_each_product(p.dtype, p.gate_up_weight, p.normed, p.size, [&](const Product& product, int64_t first_row) {
    product.for_each_block(p.intermediate, parallel_for, [&](int64_t begin, int64_t end) {
      ProductBlock gate, up;
      product.multiply(begin, end, gate);
      product.multiply(p.intermediate + begin, p.intermediate + end, up);
      activate(p.dtype, gate, up, {activation.data(), p.intermediate, first_row, product.rows(), begin, end});
    });
  });
  project_to_residual(
      {
          .dtype = p.dtype,
          .input = contiguous_rows(activation.data(), p.normed.count, activation_bytes),
          .weight = p.down_weight,
          .residual = p.residual,
          .output = p.hidden,
          .inner = p.intermediate,
          .size = p.size,
      },
      parallel_for);
}

}  // namespace eagle::cpu
