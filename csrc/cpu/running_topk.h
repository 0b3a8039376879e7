// A row of logits seen block by block: its log-sum-exp so far and its k largest so far.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/exponential.h"

namespace eagle::cpu {

struct Candidate {
  float logit;
  int32_t token;
};

// Blocks come by ascending token. NaN and +inf make `total` NaN; a row of -inf leaves `max` at -inf.
struct RunningTopk {
  Candidate* best;  // room for k, descending, ties by ascending token
  int64_t k;
  int64_t count = 0;
  float max = -std::numeric_limits<float>::infinity();
  double total = 0;  // of exp(logit - max)

  bool valid() const { return std::isfinite(max) && !std::isnan(total); }

  // sixteen logits a vector, -inf behind the last
  template <int L, int kVectors>
  EAGLE_INLINE void add_block(const float* logits, int32_t first_token) {
    Floats<L> largest = load<L>(logits);
    for (int i = 1; i < kVectors; ++i) {
      const Floats<L> v = load<L>(logits + i * kLanes);
      largest = where_less(largest, v, v, largest);
    }
    float lanes[kLanes];
    store(lanes, largest);
    float block_max = lanes[0];
    for (int i = 1; i < kLanes; ++i) block_max = lanes[i] > block_max ? lanes[i] : block_max;

    raise_max(block_max);
    const Floats<L> base = splat<L>(std::isinf(max) && max < 0 ? 0.0f : max);
    Floats<L> sums = {};
    for (int i = 0; i < kVectors; ++i) sums = sums + bounded_exp(load<L>(logits + i * kLanes) - base);
    total += sum(sums);
    if (count < k || block_max > best[k - 1].logit)
      for (int i = 0; i < kVectors * kLanes; ++i) offer({logits[i], first_token + i});
  }

  // What another part of the row, of higher tokens, has gathered.
  void add(const RunningTopk& other) {
    raise_max(other.max);
    total += other.total * (other.max == max ? 1 : std::exp(static_cast<double>(other.max) - max));
    for (int64_t i = 0; i < other.count; ++i) offer(other.best[i]);
  }

 private:
  void raise_max(float candidate) {
    if (!(candidate > max)) return;
    total *= std::exp(static_cast<double>(max) - candidate);
    max = candidate;
  }

  void offer(Candidate candidate) {
    if (count == k && !(candidate.logit > best[k - 1].logit)) return;
    if (count < k) ++count;
    int64_t place = count - 1;
    for (; place > 0 && best[place - 1].logit < candidate.logit; --place) best[place] = best[place - 1];
    best[place] = candidate;
  }
};

}  // namespace eagle::cpu
