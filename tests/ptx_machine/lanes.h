// Instructions that do the same to every lane, from a function on one lane's values.
#pragma once
#include <map>
#include <string>
#include <type_traits>

#include "decoder.h"
#include "machine.h"

namespace ptx_machine {

// A predicate among a function's parameters or as its result.
struct Predicate {
  bool value;
};

template <class T>
constexpr uint8_t kWidth = std::is_same_v<T, Predicate> ? 0 : lane_width(sizeof(T));

template <class T>
T lane_value(const Warp& warp, uint32_t at, int lane) {
  if constexpr (std::is_same_v<T, Predicate>)
    return {(warp.predicate(at) >> lane & 1) != 0};
  else
    return warp.get<T>(at, lane);
}

template <class F, class R, class... A>
struct ByLane {
  template <size_t... n>
  static void lanes(Warp& warp, const Instruction& i, Mask mask, std::index_sequence<n...>) {
    const uint32_t* at = i.at.data();
    if constexpr (std::is_same_v<R, Predicate>) {
      Mask values = 0;
      each_lane(mask, [&](int lane) {
        values |= static_cast<Mask>(F{}(lane_value<A>(warp, at[n + 1], lane)...).value) << lane;
      });
      warp.put_predicate(at[0], mask, values);
    } else if (mask == ~Mask{0}) {
      for (int lane = 0; lane < kLanes; ++lane) warp.put<R>(at[0], lane, F{}(lane_value<A>(warp, at[n + 1], lane)...));
    } else {
      each_lane(mask, [&](int lane) { warp.put<R>(at[0], lane, F{}(lane_value<A>(warp, at[n + 1], lane)...)); });
    }
  }
  static void run(Warp& warp, const Instruction& i, Mask mask) {
    lanes(warp, i, mask, std::index_sequence_for<A...>{});
  }
};

// An opcode's handler and the widths of its result and operands.
struct LaneOp {
  Handler run;
  std::vector<uint8_t> widths;
};

template <class R, class... A, class F>
LaneOp by_lane(F) {
  return {&ByLane<F, R, A...>::run, {kWidth<R>, kWidth<A>...}};
}

// Decodes d if the opcode is in the table.
inline bool decode_lane_op(const std::map<std::string, LaneOp>& table, Decoder& d, const std::string& opcode) {
  const auto found = table.find(opcode);
  if (found == table.end()) return false;
  if (d.operands.size() != found->second.widths.size()) throw std::runtime_error("wrong number of operands");
  for (size_t n = 0; n < d.operands.size(); ++n) d.take(n, found->second.widths[n]);
  for (size_t n = 0; n < d.operands.size(); ++n)
    if (d.result.widths.at(n) != found->second.widths[n]) throw std::runtime_error("an operand of another size");
  d.result.run = found->second.run;
  return true;
}

}  // namespace ptx_machine
