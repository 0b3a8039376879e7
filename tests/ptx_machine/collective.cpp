// What the lanes of a warp do together: shuffles, votes, reductions, barriers, waiting for earlier kernels.
#include <algorithm>
#include <array>

#include "lanes.h"

namespace ptx_machine {
namespace {

enum class Way { kButterfly, kIndex, kUp, kDown };

// {result, [whether the source is in range], value, lane or distance, clamp, members}; i.count counts the results.
template <Way kWay>
void shuffle(Warp& warp, const Instruction& i, Mask lanes) {
  std::array<uint32_t, kLanes> values, results;
  Mask in_range = 0;
  const uint32_t* in = &i.at[i.count];
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = warp.get<uint32_t>(in[0], lane);
  each_lane(lanes, [&](int lane) {
    const int by = warp.get<uint32_t>(in[1], lane) & 31, clamp = warp.get<uint32_t>(in[2], lane);
    const int segment = clamp >> 8 & 31, most = (lane & segment) | (clamp & 31 & ~segment), least = lane & segment;
    int from = kWay == Way::kButterfly ? lane ^ by
               : kWay == Way::kIndex   ? least | (by & ~segment)
               : kWay == Way::kUp      ? lane - by
                                       : lane + by;
    const bool good = kWay == Way::kUp ? from >= most : from <= most;
    if (!good) from = lane;
    if ((lanes >> from & 1) == 0) throw Fault(lane, "reads the value of a lane that does not shuffle");
    in_range |= static_cast<Mask>(good) << lane;
    results[lane] = values[from];
  });
  each_lane(lanes, [&](int lane) { warp.put(i.at[0], lane, results[lane]); });
  if (i.count == 2) warp.put_predicate(i.at[1], lanes, in_range);
}

void ballot(Warp& warp, const Instruction& i, Mask lanes) {
  const Mask votes = warp.predicate(i.at[1]) & lanes;
  each_lane(lanes, [&](int lane) { warp.put(i.at[0], lane, votes); });
}

void vote_any(Warp& warp, const Instruction& i, Mask lanes) {
  warp.put_predicate(i.at[0], lanes, (warp.predicate(i.at[1]) & lanes) != 0 ? ~Mask{0} : 0);
}

void vote_all(Warp& warp, const Instruction& i, Mask lanes) {
  warp.put_predicate(i.at[0], lanes, (warp.predicate(i.at[1]) & lanes) == lanes ? ~Mask{0} : 0);
}

template <class F>
void reduce(Warp& warp, const Instruction& i, Mask lanes) {
  uint32_t result = warp.get<uint32_t>(i.at[1], __builtin_ctz(lanes));
  each_lane(lanes, [&](int lane) { result = F{}(result, warp.get<uint32_t>(i.at[1], lane)); });
  each_lane(lanes, [&](int lane) { warp.put(i.at[0], lane, result); });
}

void decode_shuffle(Decoder& d) {
  const size_t bar = d.operands.at(0).find('|');
  const std::string both = bar == std::string::npos
                               ? d.operands[0]
                               : "{" + d.operands[0].substr(0, bar) + "," + d.operands[0].substr(bar + 1) + "}";
  d.take_text(both, 4);
  d.result.count = static_cast<uint8_t>(d.result.at.size());
  for (size_t n = 1; n < 5; ++n) d.take(n, 4);
  d.result.run = d.has("bfly")   ? &shuffle<Way::kButterfly>
                 : d.has("idx")  ? &shuffle<Way::kIndex>
                 : d.has("up")   ? &shuffle<Way::kUp>
                 : d.has("down") ? &shuffle<Way::kDown>
                                 : throw std::runtime_error("unknown way");
}

void order_warp(Warp& warp, const Instruction&, Mask lanes) {
  if (lanes == warp.alive) warp.warp_time = ++warp.block->cluster->time;
}

void arrive_at_cluster(Warp& warp, const Instruction&, Mask) { ++warp.cluster_arrivals; }

void wait_for_cluster(Warp& warp, const Instruction&, Mask) {
  if (warp.cluster_arrivals-- == 0) throw Fault(0, "waits for its cluster and has not arrived itself");
}

void wait_for_kernels(Warp& warp, const Instruction&, Mask lanes) { warp.waited |= lanes; }
void let_kernels_come(Warp& warp, const Instruction&, Mask lanes) {
  if ((lanes & ~warp.waited) != 0)
    throw Fault(__builtin_ctz(lanes & ~warp.waited), "lets a later kernel come before it has waited for earlier ones");
}

}  // namespace

bool decode_collective(Decoder& d) {
  Instruction& i = d.result;
  i.flow = Flow::kTogether;
  if (d.is("shfl")) {
    decode_shuffle(d);
    i.members = i.at.back();
  } else if (d.is("vote")) {
    d.take(0, d.has("ballot") ? 4 : 0), d.take(1, 0), d.take(2, 4);
    i.run = d.has("ballot") ? &ballot
            : d.has("any")  ? &vote_any
            : d.has("all")  ? &vote_all
                            : throw std::runtime_error("unknown vote");
    i.members = i.at.back();
  } else if (d.is("redux")) {
    const auto most = [](uint32_t a, uint32_t b) { return std::max(a, b); };
    const auto least = [](uint32_t a, uint32_t b) { return std::min(a, b); };
    const auto any = [](uint32_t a, uint32_t b) { return a | b; };
    for (size_t n = 0; n < 3; ++n) d.take(n, 4);
    i.run = d.opcode == "redux.sync.max.u32"   ? &reduce<decltype(most)>
            : d.opcode == "redux.sync.min.u32" ? &reduce<decltype(least)>
            : d.opcode == "redux.sync.or.b32"  ? &reduce<decltype(any)>
                                               : throw std::runtime_error("unknown reduction");
    i.members = i.at.back();
  } else if (d.opcode == "bar.warp.sync") {
    d.take(0, 4);
    i.members = i.at.back();
    i.run = &order_warp;
  } else if (d.opcode == "bar.sync" && d.operands.size() == 1 && d.literal(0) == 0) {
    i.flow = Flow::kBlock;
  } else if (d.opcode == "barrier.cluster.arrive.release.aligned") {
    i.run = &arrive_at_cluster;
  } else if (d.opcode == "barrier.cluster.wait.acquire.aligned") {
    i.run = &wait_for_cluster;
    i.flow = Flow::kCluster;
  } else {
    i.flow = Flow::kNext;
    if (d.opcode == "griddepcontrol.wait")
      i.run = &wait_for_kernels;
    else if (d.opcode == "griddepcontrol.launch_dependents")
      i.run = &let_kernels_come;
    else
      return false;
  }
  return true;
}

}  // namespace ptx_machine
