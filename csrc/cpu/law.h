// Laws over a vocabulary as fp32 logarithms with their log-sum-exp: from logits, residuals, draws.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/gumbel_bound.h"
#include "cpu/row_filter.h"

namespace eagle::cpu {

constexpr float kNever = -1e30f;  // the log of what has no probability; finite, so that differences are defined

// log_weight[token] - log_total is the log-probability; padded with kNever to whole groups. In logs nothing underflows:
// at low temperatures a law without its likeliest tokens is still a law.
struct LogLaw {
  std::vector<float> log_weight;
  double log_total = kNever;

  bool empty() const { return log_total < kNever / 2; }
  void exclude(int64_t token) { log_weight[token] = kNever; }
  double log_probability(int64_t token) const { return log_weight[token] - log_total; }
};

EAGLE_INLINE void normalise(LogLaw& law) {
  vfloat top = splat(kNever);
  for (size_t i = 0; i < law.log_weight.size(); i += kLanes) top = max(top, load(&law.log_weight[i]));
  const float largest = max_lane(top);
  law.log_total = kNever;
  if (largest < kNever / 2) return;
  DoubleSum total;
  for (size_t i = 0; i < law.log_weight.size(); i += kLanes)
    total.add(exp<Sixteen>(load(&law.log_weight[i]) - largest));
  law.log_total = largest + std::log(total.total());
}

// The law of a row of logits under the request's filters; one-hot at temperature <= 0. False for an invalid row.
template <class T>
EAGLE_INLINE bool fill_law(const Row<T>& row, const SamplingParams& params, RowScratch& scratch, LogLaw& law) {
  law.log_weight.assign(row.num_groups() * kGroup, kNever);
  law.log_total = kNever;
  scratch.group_max.resize(row.num_groups());
  const float* group_max = scratch.group_max.data();
  const RowSummary summary = summarize(row, scratch.group_max.data());
  if (!summary.valid) return false;
  if (params.temperature <= 0) {
    law.log_weight[first_argmax(row, group_max, summary.max)] = 0;
    law.log_total = 0;
    return true;
  }
  const Keep keep = find_keep(row, params, summary.max, scratch);
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    if (group_max[group] < keep.threshold) continue;
    const Group g = load_group(row, group);
    for (int i = 0; i < kGroupVectors; ++i) {
      const int64_t first_token = group * kGroup + i * kLanes;
      const vint kept = keep.mask(g.vector[i], first_token);
      const vfloat score = max((g.vector[i] - summary.max) / params.temperature, splat(kNever));
      store(&law.log_weight[first_token], Sixteen::select(kept, score, splat(kNever)));
    }
  }
  normalise(law);
  return true;
}

// law = max(scale * law - proposal, 0), where the proposal's tokens are mapped by d2t; returns the mass that is left:
// log(p - q) = log p + log(1 - exp(log q - log p)). When nothing is left, the two agree up to rounding and law stays.
EAGLE_INLINE double subtract(LogLaw& law, double scale, const LogLaw& proposal, const int32_t* d2t,
                             int64_t draft_vocabulary, std::vector<float>& scratch) {
  if (scale <= 0) return 0;
  const float owed = static_cast<float>(std::log(scale) - law.log_total);
  const float taken = static_cast<float>(-proposal.log_total);
  const size_t size = law.log_weight.size();
  scratch.assign(size, kNever);
  if (d2t) {
    for (int64_t draft_token = 0; draft_token < draft_vocabulary; ++draft_token) {
      const int64_t token = draft_token + d2t[draft_token];
      if (token >= 0 && token < static_cast<int64_t>(size)) scratch[token] = proposal.log_weight[draft_token];
    }
  } else {
    std::copy_n(proposal.log_weight.begin(), std::min(size, proposal.log_weight.size()), scratch.begin());
  }
  LogLaw left;
  left.log_weight.swap(scratch);
  for (size_t i = 0; i < size; i += kLanes) {
    const vfloat log_p = load(&law.log_weight[i]) + owed, log_q = load(&left.log_weight[i]) + taken;
    const vfloat share = 1 - exp<Sixteen>(min(log_q - log_p, vfloat{}));  // of p that is left
    const vint positive = Sixteen::less(vfloat{}, share) & Sixteen::less(splat(kNever / 2), log_p);
    store(&left.log_weight[i], Sixteen::select(positive, log_p + log<Sixteen>(share), splat(kNever)));
  }
  normalise(left);
  left.log_weight.swap(scratch);
  if (left.empty()) return 0;
  law.log_weight.swap(scratch);
  law.log_total = left.log_total;
  return std::exp(left.log_total);
}

// A token of the law: the largest log-weight + Gumbel noise, ties to the lowest token.
EAGLE_INLINE int32_t draw(const LogLaw& law, const NoiseKey& noise) {
  float best = kNever / 2;
  int32_t winner = -1;
  for (size_t first = 0; first < law.log_weight.size(); first += kGroup) {
    vfloat largest = splat(kNever);
    for (int i = 0; i < kGroupVectors; ++i) largest = max(largest, load(&law.log_weight[first + i * kLanes]));
    if (max_lane(largest) + kLargestGumbel < best) continue;
    const GroupBits bits = group_bits(noise, static_cast<int64_t>(first));
    for (int i = 0; i < kGroupVectors; ++i) {
      const vfloat score = load(&law.log_weight[first + i * kLanes]);
      if (!any(may_win(score, bits.vector[i], best))) continue;
      float lane_score[kLanes];
      store(lane_score, score + gumbel<Sixteen>(bits.vector[i]));
      for (int lane = 0; lane < kLanes; ++lane) {
        if (lane_score[lane] <= best) continue;
        best = lane_score[lane];
        winner = static_cast<int32_t>(first + i * kLanes + lane);
      }
    }
  }
  return winner;
}

}  // namespace eagle::cpu
