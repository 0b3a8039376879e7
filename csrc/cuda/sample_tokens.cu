// sample_tokens: the whole device summarizes the rows, a block per row finds what the filters keep, and the whole
// device draws. The second and third pass read only the groups of logits that can matter.
#include "common/sample_tokens.h"
#include "cuda/dependent.cuh"
#include "cuda/keyed_noise.cuh"
#include "cuda/row_filter.cuh"

namespace eagle::cuda {
namespace {

// The tokens of a row that can be drawn.
struct Candidates {
  float max;
  Keep keep;  // threshold +inf: the row's token is known already
};

// What a block tells the drawing blocks about a row, and they one another: `best` and `finished` change meanwhile.
struct RowState {
  unsigned long long best;  // highest packed (score, lowest token) so far
  Candidates candidates;
  uint32_t finished;  // drawing blocks that are done
};

// The workspace: row states, then the summary.
SummaryParams summary_params(const SampleTokensParams& p, RowState* states) {
  const int64_t rows = p.batch * p.num_nodes;
  float* group_max = reinterpret_cast<float*>(states + rows);
  return {
      .logits = p.logits.data,
      .dtype = p.logits.dtype,
      .batch_stride = p.logits.batch_stride,
      .row_stride = p.logits.row_stride,
      .batch = p.batch,
      .rows = p.num_nodes,
      .vocabulary = p.vocabulary,
      .temperature = p.requests.temperature,
      .top_p = p.requests.top_p,
      .group_max = group_max,
      .group_sum = group_max + rows * num_groups(p.vocabulary),
  };
}

// grid: batch * num_nodes.
template <class T>
__global__ void __launch_bounds__(kSelectThreads)
    filter_rows(const SampleTokensParams p, const SummaryParams summary, RowState* states) {
  wait_for_earlier_kernels();
  __shared__ Selection selection;
  const int64_t r = blockIdx.x, groups = num_groups(p.vocabulary);
  const Row<T> row = logits_row<T>(summary, r);
  const float* group_max = summary.group_max + r * groups;
  const SamplingParams params = p.requests.of(r / p.num_nodes);
  const RowSummary of_row = summarize_groups(group_max, groups);

  // A row without noise is done here.
  Keep keep{INFINITY, 0};
  int32_t token = -1;
  if (of_row.valid && params.temperature <= 0)
    token = lowest_argmax(row, group_max, of_row.max);
  else if (of_row.valid)
    keep = RowFilter<T>{selection,
                        {row, group_max, RowOrdinals<T, Ties::kHighestToken>(p.vocabulary)},
                        params,
                        of_row.max,
                        summary.group_sum + r * groups}
               .find_keep();
  if (threadIdx.x > 0) return;
  p.token_ids[r] = token;
  states[r] = {0, {of_row.max, keep}, 0};
}

__device__ float packed_score(unsigned long long packed) {
  return packed == 0 ? -INFINITY : from_ordered(static_cast<uint32_t>(packed >> 32));
}

constexpr float kLargestGumbel = 22.9f;

// Whether noise of these bits may lift `score` to `best`: it is -log(-log(u)), and 1 - u <= -log(u), so it takes
// 1 - u <= exp(score - best). The margin covers the rounding of the approximate exponential and of the sum.
__device__ bool may_win(float score, uint32_t bits, float best) {
  constexpr float kMargin = 1 + 0x1p-10f;
  return static_cast<float>(~bits) * 0x1p-32f <= exp2f((score - best) * 1.44269504f) * kMargin;
}

constexpr int kDrawWarps = 8;
constexpr int kDrawGroups = 4;  // of a warp

// The best of four tokens: argmax of (logit - max) / temperature + noise over those kept, ties to the lowest.
template <class T>
__device__ unsigned long long draw_four(const T* logits, int64_t first, int64_t size, const Candidates& candidates,
                                        float temperature, const NoiseKey& noise, unsigned long long best) {
  const PhiloxBlock<OneLane> bits = noise.bits(first);
#pragma unroll
  for (int i = 0; i < kNoiseTokens; ++i) {
    const float x = to_float(logits[i]);
    const int64_t token = first + i;
    const bool kept = token < size && (x > candidates.keep.threshold ||
                                       (x == candidates.keep.threshold && token >= candidates.keep.first_token));
    const float score = OneLane::div(OneLane::add(x, -candidates.max), temperature);
    if (!kept || !may_win(score, bits.word[i], packed_score(best))) continue;
    best =
        Max{}(best, static_cast<unsigned long long>(pack(OneLane::add(score, gumbel<OneLane>(bits.word[i])), token)));
  }
  return best;
}

// grid: (batch * num_nodes, blocks of 32 groups); the last block of a row writes its token.
template <class T>
__global__ void __launch_bounds__(kDrawWarps* kWarp)
    draw_tokens(const SampleTokensParams p, const SummaryParams summary, RowState* states) {
  wait_for_earlier_kernels();
  const int64_t r = blockIdx.x, b = r / p.num_nodes, groups = num_groups(p.vocabulary);
  const Candidates candidates = states[r].candidates;
  if (candidates.keep.threshold == INFINITY) return;  // the whole block
  const Row<T> row = logits_row<T>(summary, r);
  const float* group_max = summary.group_max + r * groups;
  const float temperature = p.requests.temperature[b];
  const NoiseKey noise(p.requests.seed[b], p.position_ids[r], Stream::kSample);

  // Draw: what other blocks have found only spares work, so it does not matter when it is read. A warp's lanes agree on
  // it, for they skip groups together.
  const volatile unsigned long long& best_of_row = states[r].best;
  unsigned long long best = __shfl_sync(kAllLanes, best_of_row, 0);
  const int64_t first_group = static_cast<int64_t>(blockIdx.y) * kDrawWarps * kDrawGroups + warp_id();
  for (int i = 0; i < kDrawGroups; ++i) {
    const int64_t group = first_group + i * kDrawWarps;
    if (group >= groups) break;
    const float largest = group_max[group];
    if (largest < candidates.keep.threshold) continue;
    if (OneLane::div(OneLane::add(largest, -candidates.max), temperature) + kLargestGumbel < packed_score(best))
      continue;
    const int64_t first = group * kGroup + lane_id() * kOctet;
    const Octet<T> octet = load_octet(row, first);
    best = draw_four(octet.value, first, row.size, candidates, temperature, noise, best);
    best = draw_four(octet.value + kNoiseTokens, first + kNoiseTokens, row.size, candidates, temperature, noise, best);
    best = warp_reduce(best, Max{});
  }

  // Merge: a maximum of integers, the same in any order.
  best = block_reduce(best, 0ull, Max{});
  if (threadIdx.x > 0) return;
  atomicMax(&states[r].best, best);
  __threadfence();  // the maximum before the count
  if (atomicAdd(&states[r].finished, 1u) + 1 < gridDim.y) return;
  // The last block: the count before the maxima, which are read where the other blocks wrote.
  __threadfence();
  p.token_ids[r] = packed_token(atomicMax(&states[r].best, 0ull));
}

}  // namespace

int64_t sample_tokens_workspace(const SampleTokensParams& p) {
  const int64_t rows = p.batch * p.num_nodes;
  const int64_t floats = 2 * num_groups(p.vocabulary);
  return rows * static_cast<int64_t>(sizeof(RowState) + floats * sizeof(float));
}

void sample_tokens(const SampleTokensParams& p, void* workspace, void* stream) {
  const int64_t rows = p.batch * p.num_nodes;
  if (rows == 0) return;
  RowState* states = static_cast<RowState*>(workspace);
  const SummaryParams summary = summary_params(p, states);
  const dim3 draw_grid(rows, ceil_div(num_groups(p.vocabulary), kDrawWarps * kDrawGroups));
  summarize_rows(summary, stream);
  dispatch(p.logits.dtype, [&](auto element) {
    using T = decltype(element);
    launch(&filter_rows<T>, dim3(rows), dim3(kSelectThreads), stream, p, summary, states);
    launch(&draw_tokens<T>, draw_grid, dim3(kDrawWarps * kWarp), stream, p, summary, states);
  });
  check_launch("sample_tokens");
}

}  // namespace eagle::cuda
