// The first pass over rows of logits, by the whole device.
#include "cuda/dependent.cuh"
#include "cuda/row_summary.cuh"

namespace eagle::cuda {
namespace {

// 0 if no sums are needed.
__device__ inline float summary_scale(const SummaryParams& p, int64_t b) {
  if (p.temperature == nullptr) return exp2_scale(1);
  return p.temperature[b] > 0 && p.top_p[b] < 1 ? exp2_scale(p.temperature[b]) : 0;
}

constexpr int kSummaryWarps = 8;
constexpr int kGroupsInFlight = 4;  // 64 bytes a lane of 16-bit logits, before the first use
constexpr int kGroupsPerBlock = kSummaryWarps * kGroupsInFlight;

// grid: (batch * rows, blocks of 32 groups); a warp summarizes four groups.
template <class T>
__global__ void __launch_bounds__(kSummaryWarps* kWarp) summarize_rows_kernel(const SummaryParams p) {
  wait_for_earlier_kernels();
  const int64_t row_index = blockIdx.x;
  const Row<T> row = logits_row<T>(p, row_index);
  const int64_t groups = num_groups(p.vocabulary);
  const int64_t first_group = static_cast<int64_t>(blockIdx.y) * kGroupsPerBlock + warp_id();
  const float scale = summary_scale(p, row_index / p.rows);

  // Load: all groups before the first use.
  Octet<T> octet[kGroupsInFlight];
#pragma unroll
  for (int i = 0; i < kGroupsInFlight; ++i)
    octet[i] = load_octet(row, (first_group + i * kSummaryWarps) * kGroup + lane_id() * kOctet);

  // Reduce: the row's end may lie inside a group, and whole groups may lie beyond it.
#pragma unroll
  for (int i = 0; i < kGroupsInFlight; ++i) {
    const int64_t group = first_group + i * kSummaryWarps;
    if (group >= groups) return;  // the same for all lanes
    const int64_t first = group * kGroup + lane_id() * kOctet;
    float x[kOctet], largest = -INFINITY;
#pragma unroll
    for (int j = 0; j < kOctet; ++j) {
      x[j] = first + j < row.size ? to_float(octet[i].value[j]) : -INFINITY;
      largest = MaxOrNan{}(largest, x[j]);
    }
    largest = warp_reduce(largest, MaxOrNan{});
    if (lane_id() == 0) p.group_max[row_index * groups + group] = largest;
    if (scale == 0) continue;
    float total = 0;
    if (largest > -INFINITY)  // else every difference would be NaN
#pragma unroll
      for (int j = 0; j < kOctet; ++j) total += exp2f((x[j] - largest) * scale);
    total = warp_reduce(total, Sum{});
    if (lane_id() == 0) p.group_sum[row_index * groups + group] = total;
  }
}

}  // namespace

void summarize_rows(const SummaryParams& p, void* stream) {
  const dim3 grid(p.batch * p.rows, ceil_div(num_groups(p.vocabulary), kGroupsPerBlock));
  dispatch(p.dtype, [&](auto element) {
    launch(&summarize_rows_kernel<decltype(element)>, grid, dim3(kSummaryWarps * kWarp), stream, p);
  });
}

}  // namespace eagle::cuda
