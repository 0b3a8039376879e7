// top-k, top-p and min-p of one row as a single threshold in the order (logit, token), found by a block.
#pragma once
#include "common/elementary.h"
#include "common/sampling.h"
#include "cuda/row_source.cuh"

namespace eagle::cuda {

// A token is kept if (logit, token) >= (threshold, first_token), compared from the left: a stable ascending sort drops
// ties from the lowest token.
struct Keep {
  float threshold;
  int32_t first_token;
};

// exp((logit - row_max) / temperature) in units of 2^-40: integers, so that a sum does not depend on its order.
template <class Ordinals>
struct Mass {
  Ordinals ordinals;
  float row_max, temperature;

  static constexpr float kOne = 0x1p40f;

  __device__ uint64_t operator()(uint64_t ordinal) const {
    const float difference = OneLane::add(ordinals.logit(ordinal), -row_max);
    return static_cast<uint64_t>(exp<OneLane>(OneLane::div(difference, temperature)) * kOne + 0.5f);
  }
};

template <class T>
struct RowFilter {
  using Ordinals = RowOrdinals<T, Ties::kHighestToken>;

  Selection& selection;
  RowSource<T, Ties::kHighestToken> source;
  SamplingParams params;
  float row_max;
  const float* group_sum;

  // What all filters keep, in transformers' order. All threads of the block.
  __device__ Keep find_keep() const {
    const Ordinals& ordinals = source.ordinals;
    const bool by_count = 0 < params.top_k && params.top_k < source.row.size;
    uint64_t keep = ordinals.lowest(ordinals.key(-INFINITY));
    selection.reset();
    if (by_count) keep = top_k();
    if (params.top_p < 1) {
      const uint64_t by_mass = top_p(keep, by_count);
      keep = by_mass > keep ? by_mass : keep;
    }
    const Keep kept{ordinals.logit(keep), ordinals.token(keep)};
    const float floor = min_p();
    return floor > kept.threshold ? Keep{floor, 0} : kept;
  }

 private:
  __device__ uint64_t highest() const { return source.ordinals.highest(source.ordinals.key(row_max)); }

  // The first ordinal with the key of the k-th largest logit; its ties stay.
  __device__ uint64_t top_k() const {
    const uint64_t floor_key = key_reached_by(selection, source, params.top_k, row_max);
    const Range range{source.ordinals.lowest(floor_key), highest()};
    return selection.reach(range, source.ordinals.token_bits, params.top_k, source, UnitWeight{});
  }

  // The smallest set of largest tokens whose mass reaches top_p of what `keep` has kept. Tokens lighter than
  // (1 - top_p) / size of the total are dropped even if all others are as light, so they are not searched.
  __device__ uint64_t top_p(uint64_t keep, bool by_count) const {
    const Mass<Ordinals> mass{source.ordinals, row_max, params.temperature};
    const double total = by_count ? sum({keep, highest()}, mass) : sum_of_row();
    const float lightest = (1 - params.top_p) * static_cast<float>(total) / static_cast<float>(source.row.size);
    constexpr float kSlack = 1e-3f;  // in logarithms: more than the rounding of the exponentials
    float floor = row_max + params.temperature * (logf(fminf(lightest, 1)) - kSlack);
    floor -= fabsf(floor) * 0x1p-20f;  // and of this line
    const uint64_t lightest_ordinal = source.ordinals.lowest(source.ordinals.key(fmaxf(floor, -INFINITY)));
    const Range range{keep > lightest_ordinal ? keep : lightest_ordinal, highest()};
    const double target = fmax(params.top_p * total * Mass<Ordinals>::kOne, 1.0);  // keeps at least one token
    return selection.reach(range, 0, static_cast<uint64_t>(target), source, mass);
  }

  __device__ double sum(Range range, const Mass<Ordinals>& mass) const {
    uint64_t total = 0;
    selection.for_each(range, source, [&](uint64_t c) { total += mass(c); });
    return static_cast<double>(block_reduce(total, uint64_t{0}, Sum{})) / Mass<Ordinals>::kOne;
  }

  __device__ double sum_of_row() const {
    return sum_groups(source.group_max, group_sum, num_groups(source.row.size), row_max,
                      exp2_scale(params.temperature));
  }

  // The smallest float that is at least the logit of probability min_p * max; -inf if off.
  __device__ float min_p() const {
    if (!(params.min_p > 0)) return -INFINITY;
    const double floor = row_max + params.temperature * ::log(fmin(static_cast<double>(params.min_p), 1.0));
    const float rounded = static_cast<float>(floor);
    return rounded < floor ? nextafterf(rounded, INFINITY) : rounded;
  }
};

}  // namespace eagle::cuda
