// lm_head_topk on the CPU: threads take chunks of the vocabulary, whose results are merged in order.
#include "common/lm_head_topk.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/rms_norm.h"
#include "cpu/gemm.h"
#include "cpu/running_topk.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kChunk = 2048;  // tokens; not the threads' ranges, so that results do not depend on their number
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <int L>
EAGLE_INLINE void add_block_at(RunningTopk* rows, ProductBlock& block, int64_t num_rows, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < num_rows; ++r) {
    float* logits = block.values + r * Product::kMaxBlock;
    std::fill(logits + (end - begin), logits + Product::kMaxBlock, -kInfinity);
    rows[r].add_block<L, Product::kMaxBlock / kLanes>(logits, static_cast<int32_t>(begin));
  }
}
EAGLE_AT_EACH_LEVEL(add_block, (RunningTopk * rows, ProductBlock& block, int64_t num_rows, int64_t begin, int64_t end),
                    (rows, block, num_rows, begin, end))

void write_row(const LmHeadTopkParams& p, const RunningTopk& row, int64_t r) {
  float* logprobs = p.logprobs + r * p.k;
  int32_t* token_ids = p.token_ids + r * p.k;
  p.valid[r] = row.valid();
  if (row.valid()) {
    const double log_total = row.max + std::log(row.total);
    for (int64_t i = 0; i < p.k; ++i) {
      logprobs[i] = static_cast<float>(row.best[i].logit - log_total);
      token_ids[i] = row.best[i].token;
    }
  } else {
    std::fill_n(logprobs, p.k, -kInfinity);
    std::iota(token_ids, token_ids + p.k, 0);
  }
  if (p.d2t)
    for (int64_t i = 0; i < p.k; ++i) token_ids[i] += p.d2t[token_ids[i]];
}

}  // namespace

void lm_head_topk(const LmHeadTopkParams& p, ParallelFor parallel_for) {
  const Rows normed = contiguous_rows(p.normed, p.hidden_states.count, p.size * size_of(p.dtype));
  rms_norm(
      {
          .dtype = p.dtype,
          .input = p.hidden_states,
          .weight = p.norm_weight,
          .output = normed,
          .size = p.size,
          .eps = p.eps,
      },
      parallel_for);
  const int64_t chunks = (p.vocabulary + kChunk - 1) / kChunk;
  for_each_product(p.dtype, p.lm_head_weight, normed, p.size, [&](const Product& product, int64_t first_row) {
    const int64_t num_rows = product.rows();
    std::vector<Candidate> candidates(chunks * num_rows * p.k);
    std::vector<RunningTopk> parts;  // [chunks, rows]
    for (int64_t i = 0; i < chunks * num_rows; ++i) parts.push_back({.best = candidates.data() + i * p.k, .k = p.k});

    parallel_for(chunks, 1, [&](int64_t first_chunk, int64_t last_chunk) {
      ProductBlock block;
      for (int64_t begin = first_chunk * kChunk; begin < std::min(last_chunk * kChunk, p.vocabulary);
           begin += Product::kMaxBlock) {
        const int64_t end = std::min(begin + Product::kMaxBlock, p.vocabulary);
        product.multiply(begin, end, block);
        add_block(parts.data() + begin / kChunk * num_rows, block, num_rows, begin, end);
      }
    });

    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t chunk = 1; chunk < chunks; ++chunk) parts[r].add(parts[chunk * num_rows + r]);
      write_row(p, parts[r], first_row + r);
    }
  });
}

}  // namespace eagle::cpu
