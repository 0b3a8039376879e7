// sample_children: the whole device summarizes the rows, then a block per row selects what the filters keep, the fixed
// children and the largest of the others with their noise.
#include "common/sample_children.h"
#include "cuda/dependent.cuh"
#include "cuda/keyed_noise.cuh"
#include "cuda/row_filter.cuh"

namespace eagle::cuda {
namespace {

constexpr int kMaxChildren = 64;
constexpr uint64_t kFixed = uint64_t{1} << 63;

SummaryParams summary_params(const SampleChildrenParams& p, void* workspace) {
  const int64_t rows = p.batch * p.num_nodes;
  float* group_max = static_cast<float*>(workspace);
  return {
      .logits = p.draft_logits.data,
      .dtype = p.draft_logits.dtype,
      .batch_stride = p.draft_logits.batch_stride,
      .row_stride = p.draft_logits.row_stride,
      .batch = p.batch,
      .rows = p.num_nodes,
      .vocabulary = p.vocabulary,
      .temperature = p.requests.temperature,
      .top_p = p.requests.top_p,
      .group_max = group_max,
      .group_sum = group_max + rows * num_groups(p.vocabulary),
  };
}

// Orders by value, then by lowest token, in 63 bits.
__device__ uint64_t child_key(float value, int64_t token) {
  return static_cast<uint64_t>(ordered(value)) << 31 | static_cast<uint32_t>(INT32_MAX - token);
}
__device__ int32_t child_token(uint64_t key) { return INT32_MAX - static_cast<int32_t>(key & INT32_MAX); }

// The row's law, and what its children are selected from.
template <class T>
struct ChildSource {
  Row<T> row;
  const float* group_max;
  Keep keep;
  float row_max, temperature;
  NoiseKey noise;
  uint64_t last_fixed;  // tokens whose child_key(logit) reaches it are fixed; 0: all are, and no noise is computed

  __device__ float score(float logit) const { return OneLane::div(OneLane::add(logit, -row_max), temperature); }

  // Calls visit(kept, logit, token, bits) for the tokens of groups that the filters keep something of, by whole warps.
  template <class Visit>
  __device__ void for_each(bool with_noise, const Visit& visit) const {
    for (int64_t group = warp_id(); group < num_groups(row.size); group += num_warps()) {
      if (group_max[group] < keep.threshold) continue;  // the same for all lanes
      const int64_t first = group * kGroup + lane_id() * kOctet;
      const Octet<T> octet = load_octet(row, first);
#pragma unroll
      for (int half = 0; half < kOctet; half += kNoiseTokens) {
        PhiloxBlock<OneLane> bits{};
        if (with_noise) bits = noise.bits(first + half);
#pragma unroll
        for (int i = 0; i < kNoiseTokens; ++i) {
          const float logit = to_float(octet.value[half + i]);
          const int64_t token = first + half + i;
          const bool above = logit > keep.threshold || (logit == keep.threshold && token >= keep.first_token);
          visit(token < row.size && above && logit > -INFINITY, logit, token, bits.word[i]);
        }
      }
    }
  }

  // As a source of Selection: every kept token's key.
  template <class Emit>
  __device__ void operator()(Range, const Emit& emit) const {
    for_each(last_fixed > 0, [&](bool kept, float logit, int64_t token, uint32_t bits) {
      uint64_t key = 0;
      if (kept) {
        key = child_key(logit, token);
        key = key >= last_fixed ? key | kFixed : child_key(OneLane::add(score(logit), gumbel<OneLane>(bits)), token);
      }
      emit(kept, key);
    });
  }

  // Log of the sum of exp(score) over what is kept, from integers: it does not depend on the order.
  __device__ double log_total() const {
    constexpr float kOne = 0x1p40f;
    uint64_t total = 0;
    for_each(false, [&](bool kept, float logit, int64_t, uint32_t) {
      if (kept) total += static_cast<uint64_t>(exp<OneLane>(score(logit)) * kOne + 0.5f);
    });
    return ::log(static_cast<double>(block_reduce(total, uint64_t{0}, Sum{})) / kOne);
  }
};

// grid: batch * num_nodes.
template <class T>
__global__ void __launch_bounds__(kSelectThreads, 1)
    draw_children(const SampleChildrenParams p, const SummaryParams summary) {
  wait_for_earlier_kernels();
  __shared__ Selection selection;
  __shared__ uint64_t chosen[kMaxChildren];
  __shared__ int32_t num_chosen;
  const int64_t r = blockIdx.x, b = r / p.num_nodes, groups = num_groups(p.vocabulary);
  const int i = threadIdx.x;
  const float* group_max = summary.group_max + r * groups;
  const RowSummary of_row = summarize_groups(group_max, groups);
  if (i == 0) num_chosen = 0;
  if (i < p.max_children) {
    p.child_tokens[r * p.max_children + i] = -1;
    p.child_logprobs[r * p.max_children + i] = -INFINITY;
  }
  const int64_t count = min(static_cast<int64_t>(p.num_children[r]), p.max_children);
  if (!of_row.valid || count <= 0) return;  // the whole block

  // The law; at temperature 0 that of the logits themselves, and every child is fixed.
  SamplingParams params = p.requests.of(b);
  int64_t num_fixed = min(max(static_cast<int64_t>(p.num_fixed[r]), int64_t{0}), count);
  if (params.temperature <= 0) {
    params = {1.0f, 0, 1.0f, 0.0f};
    num_fixed = count;
  }
  const Row<T> row = logits_row<T>(summary, r);
  const RowSource<T, Ties::kHighestToken> source{row, group_max, RowOrdinals<T, Ties::kHighestToken>(p.vocabulary)};
  const RowFilter<T> filter{selection, source, params, of_row.max, summary.group_sum + r * groups};
  const NoiseKey noise(p.requests.seed[b], p.context_len[b], Stream::kDraft, p.node_ids[r]);
  ChildSource<T> children{row, group_max, filter.find_keep(), of_row.max, params.temperature, noise, 0};
  const double log_total = children.log_total();

  // The last fixed child, then the last child; 0 if there are not so many.
  const Range all{0, ~uint64_t{0}};
  selection.reset();
  uint64_t last_fixed = ~uint64_t{0};
  if (num_fixed > 0) last_fixed = selection.reach(all, 0, num_fixed, children, UnitWeight{}) & ~kFixed;
  children.last_fixed = last_fixed;
  selection.reset();
  const uint64_t last = selection.reach(all, 0, count, children, UnitWeight{});
  selection.for_each({last, all.high}, children, [&](uint64_t key) { chosen[atomicAdd(&num_chosen, 1)] = key; });
  __syncthreads();  // all are there

  // Ranked by counting.
  if (i >= num_chosen) return;
  int rank = 0;
  for (int j = 0; j < num_chosen; ++j) rank += chosen[j] > chosen[i];
  const int32_t token = child_token(chosen[i]);
  const double logprob = children.score(to_float(row.data[token])) - log_total;
  p.child_tokens[r * p.max_children + rank] = token + (p.d2t ? p.d2t[token] : 0);
  p.child_logprobs[r * p.max_children + rank] = static_cast<float>(logprob);
}

}  // namespace

int64_t sample_children_workspace(const SampleChildrenParams& p) {
  return 2 * p.batch * p.num_nodes * num_groups(p.vocabulary) * static_cast<int64_t>(sizeof(float));
}

void sample_children(const SampleChildrenParams& p, void* workspace, void* stream) {
  const int64_t rows = p.batch * p.num_nodes;
  if (rows == 0) return;
  const SummaryParams summary = summary_params(p, workspace);
  summarize_rows(summary, stream);
  dispatch(p.draft_logits.dtype, [&](auto element) {
    launch(&draw_children<decltype(element)>, dim3(rows), dim3(kSelectThreads), stream, p, summary);
  });
  check_launch("sample_children");
}

}  // namespace eagle::cuda
