// A few input rows times a weight matrix: the core under linear and the draft head's projections.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/dtype.h"
#include "common/parallel.h"
#include "common/rows.h"
#include "common/weight.h"

namespace eagle::cpu {

struct ProductBlock;

// output[row][o] = sum over k of input[row][k] * weight[o][k], in float32, times the scale of o if the weight is fp8.
//
// Every output is one chain of fused multiply-adds, or of dot products of pairs, per vector lane over k, then one fixed
// tree over the lanes. Neither depends on the number of rows, on the block of outputs or on the thread, so an output
// has the same bits in each.
class Product {
 public:
  static constexpr int64_t kMaxRows = 128;
  static constexpr int64_t kTileOutputs = 4;
  static constexpr int64_t kMaxBlock = 64;  // outputs

  // weight: row-major, `inner` elements a row. Room for `rows` input rows; set them all before multiplying.
  Product(DType dtype, const Weight& weight, int64_t rows, int64_t inner);

  void set_row(int64_t row, const void* input);

  // Weight rows begin..end-1 times every input row, for at most kMaxBlock outputs: block.row(r)[o - begin].
  void multiply(int64_t begin, int64_t end, ProductBlock& block) const;

  // Calls body(begin, end) in parallel for blocks of at most kMaxBlock outputs that cover 0..outputs-1.
  template <class Body>
  void for_each_block(int64_t outputs, const ParallelFor& parallel_for, const Body& body) const {
    const int64_t grain = outputs_per_thread() / kTileOutputs + 1;
    parallel_for((outputs + kTileOutputs - 1) / kTileOutputs, grain, [&](int64_t first_tile, int64_t last_tile) {
      const int64_t last = std::min(last_tile * kTileOutputs, outputs);
      for (int64_t begin = first_tile * kTileOutputs; begin < last; begin += kMaxBlock)
        body(begin, std::min(begin + kMaxBlock, last));
    });
  }

  int64_t rows() const { return rows_; }

  // Outputs worth handing to another thread: some twenty microseconds of memory traffic and arithmetic.
  int64_t outputs_per_thread() const { return (1 << 20) / ((8 + rows_) * (inner_ + 1)) + 1; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  const DType dtype_;
  const Weight weight_;
  const int64_t rows_, inner_;
  std::unique_ptr<float[], Free> packed_;  // as Inputs says, zero-padded, lanes in the weight's order
};

// What Product::multiply writes; lives on the stack.
struct alignas(64) ProductBlock {
  float values[Product::kMaxRows * Product::kMaxBlock];

  const float* row(int64_t r) const { return values + r * Product::kMaxBlock; }
};

// Calls body(product, first_row) for each batch of at most kMaxRows input rows.
template <class Body>
void for_each_product(DType dtype, const Weight& weight, const Rows& input, int64_t inner, const Body& body) {
  for (int64_t first_row = 0; first_row < input.count; first_row += Product::kMaxRows) {
    Product product(dtype, weight, std::min(Product::kMaxRows, input.count - first_row), inner);
    for (int64_t r = 0; r < product.rows(); ++r) product.set_row(r, input[first_row + r]);
    body(product, first_row);
  }
}

}  // namespace eagle::cpu
