// Candidates for a selection: a row's logits, and the maxima of its groups.
#pragma once
#include "cuda/ordinal.cuh"
#include "cuda/row_summary.cuh"
#include "cuda/select.cuh"

namespace eagle::cuda {

// The ordinals of a row; groups whose maximum lies under the range are not read.
template <class T, Ties kTies>
struct RowSource {
  Row<T> row;
  const float* group_max;
  RowOrdinals<T, kTies> ordinals;

  template <class Emit>
  __device__ void operator()(Range range, const Emit& emit) const {
    const auto lowest_key = static_cast<uint32_t>(range.low >> ordinals.token_bits);
    const auto wanted = [&](float maximum) { return ordinals.key(maximum) >= lowest_key; };
    for_each_group(group_max, num_groups(row.size), warp_id(), num_warps(), wanted, [&](int group) {
      const int first = group * kGroup + lane_id() * kOctet;
      const Octet<T> octet = load_octet(row, first);
#pragma unroll
      for (int i = 0; i < kOctet; ++i) emit(first + i < row.size, ordinals.of(to_float(octet.value[i]), first + i));
    });
  }
};

// The keys of a row's group maxima.
template <class Ordinals>
struct GroupSource {
  const float* group_max;
  int64_t groups;

  template <class Emit>
  __device__ void operator()(Range, const Emit& emit) const {
    for (int64_t first = 0; first < groups; first += blockDim.x) {
      const int64_t group = first + threadIdx.x;
      emit(group < groups, group < groups ? Ordinals::key(group_max[group]) : 0);
    }
  }
};

// Lowest token with the row's maximum, by a block; its group is the lowest with that maximum.
template <class T>
__device__ inline int32_t lowest_argmax(const Row<T>& row, const float* group_max, float row_max) {
  constexpr int32_t kNone = INT32_MAX;
  int32_t group = kNone;
  for (int32_t g = threadIdx.x; g < num_groups(row.size); g += blockDim.x)
    if (group_max[g] == row_max) group = min(group, g);
  group = block_reduce(group, kNone, Min{});
  int32_t token = kNone;
  const int64_t mine = static_cast<int64_t>(group) * kGroup + threadIdx.x;
  if (threadIdx.x < kGroup && mine < row.size && to_float(row.data[mine]) == row_max)
    token = static_cast<int32_t>(mine);
  return block_reduce(token, kNone, Min{});
}

// A key that at least k of the row's logits reach: that of the k-th largest group maximum.
template <class T, Ties kTies>
__device__ uint64_t key_reached_by(Selection& selection, const RowSource<T, kTies>& source, int64_t k, float row_max) {
  using Ordinals = RowOrdinals<T, kTies>;
  const Range keys{Ordinals::key(-INFINITY), Ordinals::key(row_max)};
  const int64_t groups = num_groups(source.row.size);
  if (k > groups) return keys.low;
  selection.reset();
  const uint64_t key = selection.reach(keys, 0, k, GroupSource<Ordinals>{source.group_max, groups}, UnitWeight{});
  selection.reset();
  return key;
}

}  // namespace eagle::cuda
