// sample_tokens on the CPU: one pass for the maximum, then noise only where it can change the winner.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include "common/sample_tokens.h"
#include "cpu/by_dtype.h"
#include "cpu/gumbel_bound.h"
#include "cpu/row_filter.h"

namespace eagle::cpu {
namespace {

struct Best {
  float score;
  int32_t token;
};

EAGLE_INLINE void update(Best& best, vfloat score, vuint bits, int64_t first_token) {
  float lane[kLanes];
  store(lane, score + gumbel<Sixteen>(bits));
  for (int i = 0; i < kLanes; ++i) {
    const int32_t token = static_cast<int32_t>(first_token + i);
    if (lane[i] > best.score || (lane[i] == best.score && token < best.token)) best = {lane[i], token};
  }
}

// argmax over the kept tokens of (logit - max) / temperature + noise, ties to the lowest token.
template <class T>
EAGLE_INLINE int32_t gumbel_argmax(const Row<T>& row, const float* group_max, float row_max, float temperature,
                                   Keep keep, const NoiseKey& noise) {
  const int64_t certain = last_argmax(row, group_max, row_max);  // every filter keeps it
  Best best{token_gumbel(noise, certain), static_cast<int32_t>(certain)};
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    if (group_max[group] < keep.threshold) continue;
    if ((group_max[group] - row_max) / temperature + kLargestGumbel < best.score) continue;
    const Group logits = load_group(row, group);
    const int32_t first_token = static_cast<int32_t>(group * kGroup);
    const GroupBits bits = group_bits(noise, first_token);
    Group score;
    vint candidates = {};
    for (int i = 0; i < kGroupVectors; ++i) {
      const vint kept = keep.mask(logits.vector[i], first_token + i * kLanes);
      score.vector[i] = Sixteen::select(kept, (logits.vector[i] - row_max) / temperature, splat(-kInfinity));
      candidates |= kept & may_win(score.vector[i], bits.vector[i], best.score);
    }
    if (!any(candidates)) continue;
    for (int i = 0; i < kGroupVectors; ++i) update(best, score.vector[i], bits.vector[i], first_token + i * kLanes);
  }
  return best.token;
}

template <class T>
EAGLE_INLINE int32_t sample_row(const Row<T>& row, const SamplingParams& params, const NoiseKey& noise,
                                RowScratch& scratch) {
  scratch.group_max.resize(row.num_groups());
  const float* group_max = scratch.group_max.data();
  const RowSummary summary = summarize(row, scratch.group_max.data());
  if (!summary.valid) return -1;
  if (params.temperature <= 0) return static_cast<int32_t>(first_argmax(row, group_max, summary.max));
  const Keep keep = find_keep(row, params, summary.max, scratch);
  return gumbel_argmax(row, group_max, summary.max, params.temperature, keep, noise);
}

template <class T>
EAGLE_INLINE void sample_rows(const SampleTokensParams& p, int64_t begin, int64_t end) {
  RowScratch scratch;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / p.num_nodes, node = item % p.num_nodes;
    const T* logits = static_cast<const T*>(p.logits.data) + b * p.logits.batch_stride + node * p.logits.row_stride;
    const SamplingParams params = p.requests.of(b);
    const NoiseKey noise{philox_key(p.requests.seed[b]), static_cast<uint32_t>(p.position_ids[item]), Stream::kSample};
    p.token_ids[item] = sample_row(Row<T>{logits, p.vocabulary}, params, noise, scratch);
  }
}

EAGLE_MULTIVERSION void sample_any(const SampleTokensParams& p, int64_t begin, int64_t end) {
  by_dtype(p.logits.dtype, [&](auto element) EAGLE_INLINE_LAMBDA { sample_rows<decltype(element)>(p, begin, end); });
}

}  // namespace

void sample_tokens(const SampleTokensParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch * p.num_nodes, 1, [&](int64_t begin, int64_t end) { sample_any(p, begin, end); });
}

}  // namespace eagle::cpu
