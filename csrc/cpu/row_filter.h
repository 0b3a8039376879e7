// top-k, top-p and min-p as one threshold in the order (logit, token), found by selection instead of a sort.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "common/sampling.h"
#include "cpu/row_scan.h"

namespace eagle::cpu {

// A token is kept if (logit, token) >= (threshold, first_token), compared from the left.
struct Keep {
  float threshold = -kInfinity;
  int32_t first_token = 0;

  bool holds(float logit, int64_t token) const {
    return logit > threshold || (logit == threshold && token >= first_token);
  }

  // Which of sixteen consecutive tokens are kept; where logit and threshold are both -inf, either.
  EAGLE_INLINE vint mask(vfloat logits, int64_t token) const {
    const vint lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vint too_early = (lane - (first_token - static_cast<int32_t>(token))) >> 31;
    return Sixteen::less(splat(threshold), logits) | ~(Sixteen::less(logits, splat(threshold)) | too_early);
  }

  bool operator<(const Keep& other) const {
    return threshold != other.threshold ? threshold < other.threshold : first_token < other.first_token;
  }
};

struct WeightedEntry {
  float logit;
  int32_t token;
  float weight;  // exp((logit - max) / temperature)

  bool operator>(const WeightedEntry& other) const {
    return logit != other.logit ? logit > other.logit : token > other.token;
  }
};

// Buffers that rows reuse.
struct RowScratch {
  std::vector<float> group_max, selection;
  std::vector<Entry> entries;
  std::vector<WeightedEntry> weighted;
};

// The top_k-th largest logit; its ties stay.
template <class T>
EAGLE_INLINE Keep top_k_keep(const Row<T>& row, int64_t top_k, RowScratch& scratch) {
  scratch.entries.clear();
  collect(row, scratch.group_max.data(),
          reached_by(scratch.group_max.data(), row.num_groups(), top_k, scratch.selection), scratch.entries);
  const auto kth = scratch.entries.begin() + (top_k - 1);
  std::nth_element(scratch.entries.begin(), kth, scratch.entries.end(),
                   [](const Entry& a, const Entry& b) { return a.logit > b.logit; });
  return {kth->logit, 0};
}

// The first entry, in descending order, at which the running mass reaches `target`; the last one if none does.
inline const WeightedEntry& reach_mass(std::vector<WeightedEntry>& entries, double target) {
  auto first = entries.begin(), last = entries.end();
  double above = 0;
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, std::greater<>());
    double mass = 0;
    for (auto entry = first; entry != middle; ++entry) mass += entry->weight;
    if (above + mass >= target) {
      last = middle;
    } else {
      above += mass;
      first = middle;
    }
  }
  return *first;
}

// The smallest set of largest tokens whose mass reaches top_p of what `keep` has kept. Tokens that weigh less than
// (1 - top_p) / size of the total are dropped even if all others weigh as little, so they are never collected.
template <class T>
EAGLE_INLINE Keep top_p_keep(const Row<T>& row, const SamplingParams& params, float row_max, Keep keep,
                             RowScratch& scratch) {
  const float* group_max = scratch.group_max.data();
  const double total = sum_exp(row, group_max, row_max, params.temperature, keep.threshold);
  const double lightest = (1 - static_cast<double>(params.top_p)) * total / static_cast<double>(row.size);
  constexpr double kSlack = 1e-3;  // more than the rounding of the exponentials
  const double floor = row_max + params.temperature * (std::log(std::min(lightest, 1.0)) - kSlack);
  scratch.entries.clear();
  collect(row, group_max, std::max(keep.threshold, std::nextafter(static_cast<float>(floor), -kInfinity)),
          scratch.entries);
  scratch.weighted.clear();
  for (const Entry& e : scratch.entries)
    scratch.weighted.push_back({e.logit, e.token, exp<OneLane>((e.logit - row_max) / params.temperature)});
  const WeightedEntry& last = reach_mass(scratch.weighted, params.top_p * total);
  return {last.logit, last.token};
}

// The smallest float that is at least the logit of probability min_p * max.
inline Keep min_p_keep(const SamplingParams& params, float row_max) {
  const double floor = row_max + params.temperature * std::log(std::min<double>(params.min_p, 1));
  const float rounded = static_cast<float>(floor);
  return {rounded < floor ? std::nextafter(rounded, kInfinity) : rounded, 0};
}

// What the filters keep, in transformers' order. scratch.group_max must hold the row's summary.
template <class T>
EAGLE_INLINE Keep find_keep(const Row<T>& row, const SamplingParams& params, float row_max, RowScratch& scratch) {
  Keep keep;
  if (params.top_k > 0 && params.top_k < row.size) keep = top_k_keep(row, params.top_k, scratch);
  if (params.top_p < 1) keep = std::max(keep, top_p_keep(row, params, row_max, keep, scratch));
  if (params.min_p > 0) keep = std::max(keep, min_p_keep(params, row_max));
  return keep;
}

}  // namespace eagle::cpu
