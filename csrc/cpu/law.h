// Laws over a vocabulary as fp32 weights with their sum: from logits, residuals, draws.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/gumbel_bound.h"
#include "cpu/row_filter.h"

namespace eagle::cpu {

// weight[token] / total; padded with zeros to whole groups. Weights are relative to the likeliest token, so nothing
// that matters underflows.
struct Law {
  std::vector<float> weight;
  double total = 0;

  void exclude(int64_t token) { weight[token] = 0; }
};

// The law of a row of logits under the request's filters; one-hot at temperature <= 0. False for an invalid row.
template <class T>
EAGLE_INLINE bool fill_law(const Row<T>& row, const SamplingParams& params, RowScratch& scratch, Law& law) {
  law.weight.assign(row.num_groups() * kGroup, 0.0f);
  scratch.group_max.resize(row.num_groups());
  const float* group_max = scratch.group_max.data();
  const RowSummary summary = summarize(row, scratch.group_max.data());
  if (!summary.valid) return false;
  law.total = 1;
  if (params.temperature <= 0) {
    law.weight[first_argmax(row, group_max, summary.max)] = 1;
    return true;
  }
  const Keep keep = find_keep(row, params, summary.max, scratch);
  DoubleSum total;
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    if (group_max[group] < keep.threshold) continue;
    const Group g = load_group(row, group);
    for (int i = 0; i < kGroupVectors; ++i) {
      const int64_t first_token = group * kGroup + i * kLanes;
      const vint kept = keep.mask(g.vector[i], first_token);
      const vfloat weight = exp<Sixteen>((g.vector[i] - summary.max) / params.temperature);
      const vfloat kept_weight = Sixteen::select(kept, weight, vfloat{});
      store(&law.weight[first_token], kept_weight);
      total.add(kept_weight);
    }
  }
  law.total = total.total();
  return true;
}

EAGLE_INLINE void sum_weights(Law& law) {
  DoubleSum total;
  for (size_t i = 0; i < law.weight.size(); i += kLanes) total.add(load(&law.weight[i]));
  law.total = total.total();
}

// law = max(scale * law - proposal, 0), where the proposal's tokens are mapped by d2t; returns the mass that is left.
// When that is nothing, the two agree up to rounding and law stays as it was.
EAGLE_INLINE double subtract(Law& law, double scale, const Law& proposal, const int32_t* d2t, int64_t draft_vocabulary,
                             std::vector<float>& scratch) {
  const float keep = static_cast<float>(scale / law.total), take = static_cast<float>(1 / proposal.total);
  const size_t size = law.weight.size();
  scratch.assign(size, 0.0f);
  if (d2t) {
    for (int64_t draft_token = 0; draft_token < draft_vocabulary; ++draft_token) {
      const int64_t token = draft_token + d2t[draft_token];
      if (token >= 0 && token < static_cast<int64_t>(size)) scratch[token] = proposal.weight[draft_token];
    }
  } else {
    std::copy_n(proposal.weight.begin(), std::min(size, proposal.weight.size()), scratch.begin());
  }
  DoubleSum left;
  for (size_t i = 0; i < size; i += kLanes) {
    const vfloat difference = max(load(&law.weight[i]) * keep - load(&scratch[i]) * take, vfloat{});
    store(&scratch[i], difference);
    left.add(difference);
  }
  constexpr double kNothing = 1e-30;
  const double mass = left.total();
  if (mass < kNothing) return 0;
  law.weight.swap(scratch);
  law.total = mass;
  return mass;
}

// A token with probability proportional to its weight: the smallest exponential / weight, ties to the lowest token.
EAGLE_INLINE int32_t draw(const Law& law, const NoiseKey& noise) {
  float best = kInfinity;
  int32_t winner = -1;
  for (size_t first = 0; first < law.weight.size(); first += kGroup) {
    vfloat largest = {};
    for (int i = 0; i < kGroupVectors; ++i) largest = max(largest, load(&law.weight[first + i * kLanes]));
    if (max_lane(largest) <= 0) continue;
    const GroupBits bits = group_bits(noise, static_cast<int64_t>(first));
    for (int i = 0; i < kGroupVectors; ++i) {
      const vfloat weight = load(&law.weight[first + i * kLanes]);
      const vfloat reach = winner < 0 ? splat(kInfinity) : weight * (best * (1 + 0x1p-10f));
      if (!any(~Sixteen::less(reach, one_minus_uniform(bits.vector[i])))) continue;
      float arrival[kLanes], lane_weight[kLanes];
      store(arrival, exponential<Sixteen>(bits.vector[i]) / weight);
      store(lane_weight, weight);
      for (int lane = 0; lane < kLanes; ++lane) {
        if (!(lane_weight[lane] > 0 && arrival[lane] < best)) continue;
        best = arrival[lane];
        winner = static_cast<int32_t>(first + i * kLanes + lane);
      }
    }
  }
  return winner;
}

}  // namespace eagle::cpu
