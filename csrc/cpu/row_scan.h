// Passes over one row of logits: its maximum, the largest of every group of 64, and the entries above a threshold.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "common/elementary.h"
#include "cpu/noise.h"

namespace eagle::cpu {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class T>
struct Row {
  const T* logits;
  int64_t size;

  EAGLE_INLINE int64_t num_groups() const { return (size + kGroup - 1) / kGroup; }
};

struct Group {
  vfloat vector[kGroupVectors];
};

// Logits of one group in fp32, -inf beyond the end of the row.
template <class T>
EAGLE_INLINE Group load_group(const Row<T>& row, int64_t group) {
  const T* logits = row.logits + group * kGroup;
  const int64_t count = row.size - group * kGroup;
  Group g;
  if (count >= kGroup) {
    for (int i = 0; i < kGroupVectors; ++i) g.vector[i] = load(logits + i * kLanes);
  } else {
    float padded[kGroup];
    for (int i = 0; i < kGroup; ++i) padded[i] = i < count ? to_float(logits[i]) : -kInfinity;
    for (int i = 0; i < kGroupVectors; ++i) g.vector[i] = load(padded + i * kLanes);
  }
  return g;
}

struct RowSummary {
  float max;
  bool valid;  // no NaN, no +inf, not all -inf
};

// Fills group_max [num_groups].
template <class T>
EAGLE_INLINE RowSummary summarize(const Row<T>& row, float* group_max) {
  vfloat top = splat(-kInfinity);
  vint nan = {};  // negative where a logit was NaN
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    const Group g = load_group(row, group);
    for (int i = 0; i < kGroupVectors; ++i) nan |= 0x7f800000 - (Sixteen::bits(g.vector[i]) & 0x7fffffff);
    const vfloat largest = max(max(g.vector[0], g.vector[1]), max(g.vector[2], g.vector[3]));
    group_max[group] = max_lane(largest);
    top = max(top, largest);
  }
  const float largest = max_lane(top);
  return {largest, !any(nan >> 31) && std::isfinite(largest)};
}

// Lowest token with the row's maximum.
template <class T>
EAGLE_INLINE int64_t first_argmax(const Row<T>& row, const float* group_max, float row_max) {
  int64_t group = 0;
  while (group_max[group] != row_max) ++group;
  int64_t token = group * kGroup;
  while (to_float(row.logits[token]) != row_max) ++token;
  return token;
}

// Highest token with the row's maximum.
template <class T>
EAGLE_INLINE int64_t last_argmax(const Row<T>& row, const float* group_max, float row_max) {
  int64_t group = row.num_groups() - 1;
  while (group_max[group] != row_max) --group;
  int64_t token = std::min(row.size, (group + 1) * kGroup) - 1;
  while (to_float(row.logits[token]) != row_max) --token;
  return token;
}

// Sum of exp((logit - max) / temperature) over logits >= threshold: fp32 terms, added in double.
template <class T>
EAGLE_INLINE double sum_exp(const Row<T>& row, const float* group_max, float row_max, float temperature,
                            float threshold) {
  DoubleSum total;
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    if (group_max[group] < threshold) continue;
    const Group g = load_group(row, group);
    for (int i = 0; i < kGroupVectors; ++i) {
      const vfloat weight = exp<Sixteen>((g.vector[i] - row_max) / temperature);
      total.add(Sixteen::select(Sixteen::less(g.vector[i], splat(threshold)), vfloat{}, weight));
    }
  }
  return total.total();
}

struct Entry {
  float logit;
  int32_t token;
};

// Appends the entries with logit >= threshold, by ascending token.
template <class T>
EAGLE_INLINE void collect(const Row<T>& row, const float* group_max, float threshold, std::vector<Entry>& entries) {
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    if (group_max[group] < threshold) continue;
    const Group g = load_group(row, group);
    float logits[kGroup];
    for (int i = 0; i < kGroupVectors; ++i) store(logits + i * kLanes, g.vector[i]);
    const int64_t count = std::min<int64_t>(kGroup, row.size - group * kGroup);
    for (int64_t i = 0; i < count; ++i)
      if (logits[i] >= threshold) entries.push_back({logits[i], static_cast<int32_t>(group * kGroup + i)});
  }
}

// A logit that at least `count` of the row reach: the count-th largest of the group maxima, or -inf if groups are few.
inline float reached_by(const float* group_max, int64_t num_groups, int64_t count, std::vector<float>& scratch) {
  if (count > num_groups) return -kInfinity;
  scratch.assign(group_max, group_max + num_groups);
  std::nth_element(scratch.begin(), scratch.begin() + (count - 1), scratch.end(), std::greater<>());
  return scratch[count - 1];
}

}  // namespace eagle::cpu
