// cp.async: copies that land in shared memory when their thread waits for them.
#include <algorithm>

#include "global_memory.h"
#include "lanes.h"

namespace ptx_machine {
namespace {

// {to, from, [bytes to read]}; i.bytes are written, zeros behind those that are read.
void begin_copy(Warp& warp, const Instruction& i, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    Copy copy{lane, warp.get<uint32_t>(i.at[0], lane), i.bytes, {}, warp.copy_groups[lane]};
    const uint64_t from = warp.get<uint64_t>(i.at[1], lane);
    const uint32_t read = i.at.size() > 2 ? warp.get<uint32_t>(i.at[2], lane) : i.bytes;
    if (copy.to % i.bytes != 0 || from % i.bytes != 0)
      throw Fault(lane, "copies between addresses that are no multiples of " + std::to_string(i.bytes));
    if (read > i.bytes) throw Fault(lane, "reads more bytes than it copies");
    if (read != 0) std::memcpy(copy.data.data(), global_place(warp, lane, from, read, Use::kRead), read);
    warp.block->shared.begin_copy(warp, lane, copy.to, i.bytes);
    warp.copies.push_back(copy);
  });
}

void commit(Warp& warp, const Instruction&, Mask lanes) {
  each_lane(lanes, [&](int lane) { ++warp.copy_groups[lane]; });
}

// Until at most i.number groups of each lane are under way.
void wait(Warp& warp, const Instruction& i, Mask lanes) {
  const auto lands = [&](const Copy& copy) {
    return (lanes >> copy.lane & 1) != 0 && copy.group + i.number < warp.copy_groups[copy.lane];
  };
  for (const Copy& copy : warp.copies)
    if (lands(copy)) warp.block->shared.land_copy(warp, copy.lane, copy.to, copy.bytes, copy.data.data());
  warp.copies.erase(std::remove_if(warp.copies.begin(), warp.copies.end(), lands), warp.copies.end());
}

}  // namespace

bool decode_copy(Decoder& d) {
  if (d.part.size() < 3 || d.part[0] != "cp" || d.part[1] != "async") return false;
  Instruction& i = d.result;
  if (d.opcode == "cp.async.commit_group") {
    i.run = &commit;
  } else if (d.opcode == "cp.async.wait_group") {
    i.number = d.literal(0);
    i.run = &wait;
  } else if (d.has("shared") && d.has("global")) {
    i.bytes = static_cast<uint8_t>(d.literal(2));
    const bool known = d.part[2] == "cg" ? i.bytes == 16 : i.bytes == 4 || i.bytes == 8 || i.bytes == 16;
    if (!known) throw std::runtime_error("so many bytes cannot be copied");
    d.take_address(0);
    const bool moved = i.number != 0;
    d.take_address(1);
    if (moved || i.number != 0) throw std::runtime_error("offsets are unknown here");
    if (d.operands.size() > 3) d.take(3, 4);
    i.run = &begin_copy;
  } else {
    return false;
  }
  return true;
}

}  // namespace ptx_machine
