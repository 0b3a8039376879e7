// topk_logprobs: one pass over the logits by the whole device, then a block per row selects among few groups.
#include "common/topk_logprobs.h"
#include "cuda/dependent.cuh"
#include "cuda/row_source.cuh"

namespace eagle::cuda {
namespace {

constexpr int kMaxK = 64;

SummaryParams summary_params(const TopkLogprobsParams& p, void* workspace) {
  const int64_t groups = num_groups(p.vocabulary);
  float* group_max = static_cast<float*>(workspace);
  return {
      .logits = p.logits,
      .dtype = p.dtype,
      .batch_stride = 0,
      .row_stride = p.row_stride,
      .batch = 1,
      .rows = p.rows,
      .vocabulary = p.vocabulary,
      .temperature = nullptr,
      .top_p = nullptr,
      .group_max = group_max,
      .group_sum = group_max + p.rows * groups,
  };
}

// grid: rows.
template <class T>
__global__ void __launch_bounds__(kSelectThreads, 1)
    select_topk(const TopkLogprobsParams p, const SummaryParams summary) {
  wait_for_earlier_kernels();
  __shared__ Selection selection;
  __shared__ uint64_t best[kMaxK];
  __shared__ int32_t num_best;
  using Ordinals = RowOrdinals<T, Ties::kLowestToken>;
  const int64_t r = blockIdx.x, groups = num_groups(p.vocabulary);
  const int i = threadIdx.x;
  const float* group_max = summary.group_max + r * groups;

  // Validity, and ids that are safe to use in an invalid row.
  const RowSummary of_row = summarize_groups(group_max, groups);
  if (i == 0) {
    p.valid[r] = of_row.valid;
    num_best = 0;
  }
  if (!of_row.valid) {
    if (i >= p.k) return;
    p.logprobs[r * p.k + i] = -INFINITY;
    p.token_ids[r * p.k + i] = i + (p.d2t ? p.d2t[i] : 0);
    return;
  }

  // Log of the sum of exponentials.
  const float total = sum_groups(group_max, summary.group_sum + r * groups, groups, of_row.max, exp2_scale(1));

  // The k-th largest (logit, token).
  const RowSource<T, Ties::kLowestToken> source{logits_row<T>(summary, r), group_max, Ordinals(p.vocabulary)};
  selection.reset();
  const uint64_t floor_key = key_reached_by(selection, source, p.k, of_row.max);
  const Ordinals& ordinals = source.ordinals;
  const Range range{ordinals.lowest(floor_key), ordinals.highest(ordinals.key(of_row.max))};
  const uint64_t kth = selection.reach(range, 0, p.k, source, UnitWeight{});

  // Those that reach it, ranked by counting.
  selection.for_each({kth, range.high}, source, [&](uint64_t c) { best[atomicAdd(&num_best, 1)] = c; });
  __syncthreads();  // all k are there
  if (i >= p.k) return;
  const uint64_t mine = best[i];
  int rank = 0;
  for (int j = 0; j < p.k; ++j) rank += best[j] > mine;
  const int32_t token = ordinals.token(mine);
  const double logprob = static_cast<double>(ordinals.logit(mine)) - of_row.max - ::log(static_cast<double>(total));
  p.logprobs[r * p.k + rank] = static_cast<float>(logprob);
  p.token_ids[r * p.k + rank] = token + (p.d2t ? p.d2t[token] : 0);
}

}  // namespace

int64_t topk_logprobs_workspace(const TopkLogprobsParams& p) {
  return 2 * p.rows * num_groups(p.vocabulary) * static_cast<int64_t>(sizeof(float));
}

void topk_logprobs(const TopkLogprobsParams& p, void* workspace, void* stream) {
  if (p.rows == 0) return;
  const SummaryParams summary = summary_params(p, workspace);
  summarize_rows(summary, stream);
  dispatch(p.dtype, [&](auto element) {
    using T = decltype(element);
    launch(&select_topk<T>, dim3(p.rows), dim3(kSelectThreads), stream, p, summary);
  });
  check_launch("topk_logprobs");
}

}  // namespace eagle::cuda
