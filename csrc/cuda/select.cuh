// Exact weighted selection by one block: the largest ordinal that candidates of a given total weight reach.
// A search narrows a range of ordinals a thousandfold per pass, by a histogram; integers make the sums exact.
#pragma once
#include "cuda/ordinal.cuh"
#include "cuda/reduce.cuh"

namespace eagle::cuda {

constexpr int kSelectThreads = 1024;
constexpr int kBinBits = 10;  // a bin a thread
constexpr int kBuffered = 4096;
static_assert(kSelectThreads == 1 << kBinBits);

struct Range {
  uint64_t low, high;  // both included

  __device__ bool contains(uint64_t ordinal) const { return low <= ordinal && ordinal <= high; }
};

// Shared memory of a selection. Candidates come from a source(range, emit), where emit(wanted, ordinal) is called by
// whole warps; those of a range are kept on chip as soon as they are few enough.
struct Selection {
  uint32_t bin_low[kSelectThreads], bin_high[kSelectThreads];  // shared memory adds 32 bits natively
  uint64_t buffer[kBuffered];
  int32_t count;  // of the range last collected, in `buffer` unless there are too many
  Range held;     // what `buffer` holds; empty if low > high
  uint64_t warp_total[kWarp];
  struct {
    uint64_t bin, above;
  } crossing;

  // Forgets the buffer: before the first search, and when the candidates change.
  __device__ void reset() {
    __syncthreads();  // others may still be reading
    if (threadIdx.x == 0) held = {1, 0};
    __syncthreads();
  }

  // Calls visit(ordinal) for every candidate in `range`, each from some thread.
  template <class Source, class Visit>
  __device__ void for_each(Range range, const Source& source, const Visit& visit) {
    if (held.low <= range.low && range.high <= held.high) {
      for (int i = threadIdx.x; i < count; i += kSelectThreads)
        if (range.contains(buffer[i])) visit(buffer[i]);
      return;
    }
    __syncthreads();  // all have seen what is held
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    source(range, [&](bool wanted, uint64_t ordinal) {
      wanted = wanted && range.contains(ordinal);
      if (wanted) visit(ordinal);
      push(wanted, ordinal);
    });
    __syncthreads();  // the count is final
    if (threadIdx.x == 0) held = count <= kBuffered ? range : Range{1, 0};
    __syncthreads();
  }

  // The largest ordinal c in `range` such that the candidates c..range.high weigh at least `target` > 0 together;
  // range.low if there is none. Ordinals that differ only in their low stop_bits count as one.
  template <class Source, class Weigh>
  __device__ uint64_t reach(Range range, int stop_bits, uint64_t target, const Source& source, const Weigh& weigh) {
    uint64_t above = 0;  // weight of the candidates over range.high
    while ((range.high - range.low) >> stop_bits) {
      const int width = bit_width(static_cast<int64_t>(range.high - range.low));
      const int shift = width - kBinBits > stop_bits ? width - kBinBits : stop_bits;
      bin_low[threadIdx.x] = bin_high[threadIdx.x] = 0;
      __syncthreads();  // before the first addition
      for_each(range, source, [&](uint64_t c) { add((c - range.low) >> shift, weigh(c)); });
      __syncthreads();  // after the last
      find_crossing(target - above);
      above += crossing.above;
      range.low += crossing.bin << shift;
      const uint64_t last = range.low + ((uint64_t{1} << shift) - 1);
      range.high = last < range.high ? last : range.high;
    }
    return range.low;
  }

 private:
  // Room for a warp at a time; where the buffer overflows, only the count goes on.
  __device__ void push(bool wanted, uint64_t ordinal) {
    const unsigned votes = __ballot_sync(kAllLanes, wanted);
    if (votes == 0) return;
    int first = 0;
    if (lane_id() == 0) first = atomicAdd(&count, __popc(votes));
    first = __shfl_sync(kAllLanes, first, 0);
    const int slot = first + __popc(votes & ((1u << lane_id()) - 1));
    if (wanted && slot < kBuffered) buffer[slot] = ordinal;
  }

  __device__ void add(uint64_t bin, uint64_t weight) {
    const uint32_t low = static_cast<uint32_t>(weight);
    const uint32_t carry = atomicAdd(&bin_low[bin], low) > ~low ? 1 : 0;
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
    if (high != 0) atomicAdd(&bin_high[bin], high);
  }

  // The highest bin at which the weight summed from the top reaches `target`, and the weight above that bin;
  // bin 0 if there is none. A thread takes the bin of its rank from the top.
  __device__ void find_crossing(uint64_t target) {
    const int bin = kSelectThreads - 1 - static_cast<int>(threadIdx.x);
    const uint64_t weight = static_cast<uint64_t>(bin_high[bin]) << 32 | bin_low[bin];
    uint64_t reached = weight;  // inclusive sum over the warp
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const uint64_t before = __shfl_up_sync(kAllLanes, reached, offset);
      if (lane_id() >= offset) reached += before;
    }
    if (lane_id() == kWarp - 1) warp_total[warp_id()] = reached;
    __syncthreads();  // the totals of all warps
    reached += warp_reduce(lane_id() < warp_id() ? warp_total[lane_id()] : 0, Sum{});
    const bool crosses = reached - weight < target && reached >= target;
    if (crosses || (bin == 0 && reached < target)) crossing = {static_cast<uint64_t>(bin), reached - weight};
    __syncthreads();  // one thread has written it
  }
};

struct UnitWeight {
  __device__ uint64_t operator()(uint64_t) const { return 1; }
};

}  // namespace eagle::cuda
