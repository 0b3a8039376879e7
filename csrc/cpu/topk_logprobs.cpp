// topk_logprobs on the CPU: the group maxima bound the k-th value, so only a few groups are searched.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include <numeric>

#include "common/topk_logprobs.h"
#include "cpu/by_dtype.h"
#include "cpu/row_scan.h"

namespace eagle::cpu {
namespace {

struct Scratch {
  std::vector<float> group_max, selection;
  std::vector<Entry> entries;
};

// Leaves the k largest entries of the row in scratch.entries, descending, ties by ascending token.
template <class T>
EAGLE_INLINE void select(const Row<T>& row, int64_t k, Scratch& scratch) {
  const float* group_max = scratch.group_max.data();
  scratch.entries.clear();
  collect(row, group_max, reached_by(group_max, row.num_groups(), k, scratch.selection), scratch.entries);
  std::partial_sort(
      scratch.entries.begin(), scratch.entries.begin() + k, scratch.entries.end(),
      [](const Entry& a, const Entry& b) { return a.logit != b.logit ? a.logit > b.logit : a.token < b.token; });
}

template <class T>
EAGLE_INLINE void topk_rows(const TopkLogprobsParams& p, int64_t begin, int64_t end) {
  Scratch scratch;
  for (int64_t r = begin; r < end; ++r) {
    const Row<T> row{static_cast<const T*>(p.logits) + r * p.row_stride, p.vocabulary};
    scratch.group_max.resize(row.num_groups());
    const RowSummary summary = summarize(row, scratch.group_max.data());
    p.valid[r] = summary.valid;
    float* logprobs = p.logprobs + r * p.k;
    int32_t* token_ids = p.token_ids + r * p.k;
    if (summary.valid) {
      select(row, p.k, scratch);
      const double log_total =
          summary.max + std::log(sum_exp(row, scratch.group_max.data(), summary.max, 1.0f, -kInfinity));
      for (int64_t i = 0; i < p.k; ++i) {
        logprobs[i] = static_cast<float>(scratch.entries[i].logit - log_total);
        token_ids[i] = scratch.entries[i].token;
      }
    } else {
      std::fill_n(logprobs, p.k, -kInfinity);
      std::iota(token_ids, token_ids + p.k, 0);
    }
    if (p.d2t)
      for (int64_t i = 0; i < p.k; ++i) token_ids[i] += p.d2t[token_ids[i]];
  }
}

EAGLE_MULTIVERSION void topk_any(const TopkLogprobsParams& p, int64_t begin, int64_t end) {
  by_dtype(p.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { topk_rows<decltype(element)>(p, begin, end); });
}

}  // namespace

void topk_logprobs(const TopkLogprobsParams& p, ParallelFor parallel_for) {
  parallel_for(p.rows, 1, [&](int64_t begin, int64_t end) { topk_any(p, begin, end); });
}

}  // namespace eagle::cpu
