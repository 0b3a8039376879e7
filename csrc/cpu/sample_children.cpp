// sample_children on the CPU: Gumbel top-k that computes noise only where it can enter the best so far.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include "common/sample_children.h"
#include "cpu/by_dtype.h"
#include "cpu/gumbel_bound.h"
#include "cpu/row_filter.h"

namespace eagle::cpu {
namespace {

struct Child {
  float order;  // score + noise
  float score;  // (logit - max) / temperature
  int32_t token;
};

// The likeliest `count` tokens, ties to the lowest.
template <class T>
EAGLE_INLINE void append_fixed(const Row<T>& row, int64_t count, Keep keep, float row_max, float temperature,
                               RowScratch& scratch, std::vector<Child>& children) {
  const float* group_max = scratch.group_max.data();
  const float floor = reached_by(group_max, row.num_groups(), count, scratch.selection);
  scratch.entries.clear();
  collect(row, group_max, std::max(floor, keep.threshold), scratch.entries);
  std::erase_if(scratch.entries,
                [&](const Entry& e) { return e.logit == -kInfinity || !keep.holds(e.logit, e.token); });
  const auto last = scratch.entries.begin() + std::min<int64_t>(count, scratch.entries.size());
  std::partial_sort(scratch.entries.begin(), last, scratch.entries.end(), [](const Entry& a, const Entry& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  });
  for (auto e = scratch.entries.begin(); e != last; ++e) {
    const float score = (e->logit - row_max) / temperature;
    children.push_back({score, score, e->token});
  }
}

// Inserts into children[first..], kept in descending order, at most `capacity` of them in all.
inline void insert(std::vector<Child>& children, size_t first, size_t capacity, const Child& child) {
  for (size_t i = 0; i < first; ++i)
    if (children[i].token == child.token) return;
  const auto later = [](const Child& a, const Child& b) { return a.order > b.order; };
  children.insert(std::upper_bound(children.begin() + first, children.end(), child, later), child);
  if (children.size() > capacity) children.pop_back();
}

// Appends samples without replacement, in draw order, until there are `count` children.
template <class T>
EAGLE_INLINE void append_samples(const Row<T>& row, size_t count, Keep keep, float row_max, float temperature,
                                 const NoiseKey& noise, const RowScratch& scratch, std::vector<Child>& children) {
  const size_t first = children.size();
  float worst = -kInfinity;  // what a token's order must exceed
  for (int64_t group = 0; group < row.num_groups() && first < count; ++group) {
    const float top = scratch.group_max[group];
    if (top < keep.threshold || (top - row_max) / temperature + kLargestGumbel < worst) continue;
    const Group g = load_group(row, group);
    const GroupBits bits = group_bits(noise, group * kGroup);
    for (int i = 0; i < kGroupVectors; ++i) {
      const int64_t first_token = group * kGroup + i * kLanes;
      const vfloat score = (g.vector[i] - row_max) / temperature;
      const vint kept = keep.mask(g.vector[i], first_token);
      if (!any(worst > -kInfinity ? kept & may_win(score, bits.vector[i], worst) : kept)) continue;
      float lane_score[kLanes], order[kLanes];
      store(lane_score, Sixteen::select(kept, score, splat(-kInfinity)));
      store(order, score + gumbel<Sixteen>(bits.vector[i]));
      for (int lane = 0; lane < kLanes; ++lane) {
        if (!(lane_score[lane] > -kInfinity && order[lane] > worst)) continue;
        insert(children, first, count, {order[lane], lane_score[lane], static_cast<int32_t>(first_token + lane)});
        if (children.size() == count) worst = children.back().order;
      }
    }
  }
}

// Fills `children` and returns the log of the law's total weight.
template <class T>
EAGLE_INLINE double children_of(const Row<T>& row, SamplingParams params, size_t count, size_t num_fixed,
                                const NoiseKey& noise, RowScratch& scratch, std::vector<Child>& children) {
  children.clear();
  scratch.group_max.resize(row.num_groups());
  const RowSummary summary = summarize(row, scratch.group_max.data());
  if (!summary.valid || count == 0) return 0;
  if (params.temperature <= 0) {
    params = {1.0f, 0, 1.0f, 0.0f};
    num_fixed = count;
  }
  const Keep keep = find_keep(row, params, summary.max, scratch);
  DoubleSum total;
  for (int64_t group = 0; group < row.num_groups(); ++group) {
    if (scratch.group_max[group] < keep.threshold) continue;
    const Group g = load_group(row, group);
    for (int i = 0; i < kGroupVectors; ++i) {
      const vfloat weight = exp<Sixteen>((g.vector[i] - summary.max) / params.temperature);
      total.add(Sixteen::select(keep.mask(g.vector[i], group * kGroup + i * kLanes), weight, vfloat{}));
    }
  }
  if (num_fixed > 0)
    append_fixed(row, std::min(num_fixed, count), keep, summary.max, params.temperature, scratch, children);
  append_samples(row, count, keep, summary.max, params.temperature, noise, scratch, children);
  return std::log(total.total());
}

template <class T>
EAGLE_INLINE void sample_rows(const SampleChildrenParams& p, int64_t begin, int64_t end) {
  RowScratch scratch;
  std::vector<Child> children;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / p.num_nodes, node = item % p.num_nodes;
    const T* logits =
        static_cast<const T*>(p.draft_logits.data) + b * p.draft_logits.batch_stride + node * p.draft_logits.row_stride;
    const NoiseKey noise{philox_key(p.requests.seed[b]), static_cast<uint32_t>(p.context_len[b]), Stream::kDraft,
                         static_cast<uint32_t>(p.node_ids[item])};
    const size_t count = std::clamp<int64_t>(p.num_children[item], 0, p.max_children);
    const size_t num_fixed = std::max(p.num_fixed[item], 0);
    const double log_total =
        children_of(Row<T>{logits, p.vocabulary}, p.requests.of(b), count, num_fixed, noise, scratch, children);
    int32_t* tokens = p.child_tokens + item * p.max_children;
    float* logprobs = p.child_logprobs + item * p.max_children;
    std::fill_n(tokens, p.max_children, -1);
    std::fill_n(logprobs, p.max_children, -kInfinity);
    for (size_t i = 0; i < children.size(); ++i) {
      tokens[i] = children[i].token + (p.d2t ? p.d2t[children[i].token] : 0);
      logprobs[i] = static_cast<float>(children[i].score - log_total);
    }
  }
}

EAGLE_MULTIVERSION void sample_any(const SampleChildrenParams& p, int64_t begin, int64_t end) {
  by_dtype(p.draft_logits.dtype,
           [&](auto element) EAGLE_INLINE_LAMBDA { sample_rows<decltype(element)>(p, begin, end); });
}

}  // namespace

void sample_children(const SampleChildrenParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch * p.num_nodes, 1, [&](int64_t begin, int64_t end) { sample_any(p, begin, end); });
}

}  // namespace eagle::cpu
