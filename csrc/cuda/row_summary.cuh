// First pass over rows of logits: the largest of every group of 256, and the group's sum of exponentials.
// Later passes read only the groups that can matter.
#pragma once
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr int kGroup = kWarp * kOctet;  // a warp reads a group at once

__host__ __device__ constexpr int64_t num_groups(int64_t vocabulary) { return ceil_div(vocabulary, kGroup); }

struct SummaryParams {
  const void* logits;  // [batch, rows, vocabulary], strides in elements, the last dimension contiguous
  DType dtype;
  int64_t batch_stride, row_stride;
  int64_t batch, rows, vocabulary;
  const float* temperature;  // [batch], or null for 1
  const float* top_p;        // [batch], or null; sums are needed where it is < 1
  float* group_max;          // [batch * rows, num_groups] NaN where a logit is NaN
  float* group_sum;          // [batch * rows, num_groups] sum of exp((logit - group_max) / temperature)
};

template <class T>
__device__ Row<T> logits_row(const SummaryParams& p, int64_t row) {
  const int64_t b = row / p.rows;
  return row_at<T>(p.logits, b * p.batch_stride + (row - b * p.rows) * p.row_stride, p.vocabulary);
}

// log2(e) / temperature; bounded, so that 0 * scale is 0 even for the smallest temperature, and -inf * scale is -inf
// even for an infinite one.
__device__ inline float exp2_scale(float temperature) { return fminf(fmaxf(1.44269504f / temperature, 1e-30f), 1e30f); }

// Fills group_max and group_sum.
void summarize_rows(const SummaryParams& p, void* stream);

// Calls visit(group) for each group that is wanted by its maximum, one of `warps` warps for each in turn, which looks
// at 32 maxima at once. Whole warps only.
template <class Wanted, class Visit>
__device__ void for_each_group(const float* group_max, int64_t groups, int warp, int warps, const Wanted& wanted,
                               const Visit& visit) {
  for (int begin = warp; begin < static_cast<int>(groups); begin += warps * kWarp) {
    const int mine = begin + lane_id() * warps;
    unsigned left = __ballot_sync(kAllLanes, mine < static_cast<int>(groups) && wanted(group_max[mine]));
    for (; left != 0; left &= left - 1) visit(begin + (__ffs(left) - 1) * warps);
  }
}

// What the summary says about a whole row.
struct RowSummary {
  float max;
  bool valid;  // no NaN, no +inf, not all -inf

  __device__ explicit RowSummary(float largest) : max(largest), valid(fabsf(largest) < INFINITY) {}
};

// All threads of a block, for one row's maxima.
__device__ inline RowSummary summarize_groups(const float* group_max, int64_t groups) {
  float largest = -INFINITY;
  for (int64_t group = threadIdx.x; group < groups; group += blockDim.x)
    largest = MaxOrNan{}(largest, group_max[group]);
  return RowSummary(block_reduce(largest, -INFINITY, MaxOrNan{}));
}

// Sum of exp((logit - row_max) / temperature) over one row, by all threads of a block.
__device__ inline float sum_groups(const float* group_max, const float* group_sum, int64_t groups, float row_max,
                                   float scale) {
  float total = 0;
  for (int64_t group = threadIdx.x; group < groups; group += blockDim.x)
    total += group_sum[group] * exp2f((group_max[group] - row_max) * scale);
  return block_reduce(total, 0.0f, Sum{});
}

}  // namespace eagle::cuda
