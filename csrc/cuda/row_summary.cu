// The first pass over rows of logits, by the whole device.
#include "cuda/dependent.cuh"
#include "cuda/exp2.cuh"
#include "cuda/ordinal.cuh"
#include "cuda/row_summary.cuh"

namespace eagle::cuda {
namespace {

// 0 if no sums are needed.
__device__ inline float summary_scale(float temperature, float top_p) {
  return temperature > 0 && top_p < 1 ? exp2_scale(temperature) : 0;
}

// Whether all rows are aligned octets, to be read 16 bytes at a time.
bool whole_octets(const SummaryParams& p) {
  return (reinterpret_cast<uintptr_t>(p.logits) % sizeof(uint4) |
          (p.vocabulary | p.batch_stride | p.row_stride) % kOctet) == 0;
}

// Elements first..first + 7 of a row; past its end the last ones again, which leave a group's maximum as it is.
template <bool kWholeOctets, class T>
__device__ Octet<T> load_inside(const T* row, int size, int first) {
  if constexpr (kWholeOctets) {
    return *reinterpret_cast<const Octet<T>*>(row + min(first, size - kOctet));
  } else {
    Octet<T> octet;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) octet.value[i] = row[min(first + i, size - 1)];
    return octet;
  }
}

constexpr int kSummaryWarps = 8;
constexpr int kGroupsInFlight = 4;  // 64 bytes a lane of 16-bit logits, before the first use
constexpr int kGroupsPerBlock = kSummaryWarps * kGroupsInFlight;

// grid: (batch * rows, blocks of 32 groups); a warp summarizes four groups.
template <class T, bool kWholeOctets>
__global__ void __launch_bounds__(kSummaryWarps* kWarp) summarize_rows_kernel(const SummaryParams p) {
  wait_for_earlier_kernels();
  const int64_t row_index = blockIdx.x, b = row_index / p.rows;
  const T* row = logits_row<T>(p, row_index).data;
  const int size = static_cast<int>(p.vocabulary), groups = static_cast<int>(num_groups(size));
  const int first_group = static_cast<int>(blockIdx.y) * kGroupsPerBlock + warp_id();
  const auto first_of = [](int group) { return group * kGroup + lane_id() * kOctet; };

  // Load: everything before the first use.
  const float temperature = p.temperature ? p.temperature[b] : 1, top_p = p.top_p ? p.top_p[b] : 0;
  Octet<T> octet[kGroupsInFlight];
#pragma unroll
  for (int i = 0; i < kGroupsInFlight; ++i)
    octet[i] = load_inside<kWholeOctets>(row, size, first_of(first_group + i * kSummaryWarps));
  const float scale = summary_scale(temperature, top_p);

  // Reduce: whole groups may lie beyond the row's end.
#pragma unroll
  for (int i = 0; i < kGroupsInFlight; ++i) {
    const int group = first_group + i * kSummaryWarps, first = first_of(group);
    if (group >= groups) return;  // the same for all lanes
    float x[kOctet];
#pragma unroll
    for (int j = 0; j < kOctet; ++j) x[j] = to_float(octet[i].value[j]);
    float largest = x[0];
#pragma unroll
    for (int j = 1; j < kOctet; ++j) largest = MaxOrNan{}(largest, x[j]);
    largest = from_ordered(__reduce_max_sync(kAllLanes, ordered(largest)));  // NaN is above all
    if (lane_id() == 0) p.group_max[row_index * groups + group] = largest;
    if (scale == 0) continue;
    float total = 0;
    if (largest > -INFINITY)  // else every difference would be NaN
#pragma unroll
      for (int j = 0; j < kOctet; ++j) {
        const float term = exp2_approx((x[j] - largest) * scale);
        if (first + (kWholeOctets ? 0 : j) < size) total += term;
      }
    total = warp_reduce(total, Sum{});
    if (lane_id() == 0) p.group_sum[row_index * groups + group] = total;
  }
}

}  // namespace

void summarize_rows(const SummaryParams& p, void* stream) {
  const dim3 grid(p.batch * p.rows, ceil_div(num_groups(p.vocabulary), kGroupsPerBlock));
  dispatch(p.dtype, [&](auto element) {
    using T = decltype(element);
    launch(whole_octets(p) ? &summarize_rows_kernel<T, true> : &summarize_rows_kernel<T, false>, grid,
           dim3(kSummaryWarps * kWarp), stream, p);
  });
}

}  // namespace eagle::cuda
