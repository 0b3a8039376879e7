// The order that barriers make.
#include "order.h"

#include "machine.h"

namespace ptx_machine {
namespace {

constexpr uint32_t kKindShift = 20, kBlockShift = 10, kThreadBits = (1 << kBlockShift) - 1;

}  // namespace

uint32_t who(Kind kind, int block, int thread) {
  return kind << kKindShift | static_cast<uint32_t>(block) << kBlockShift | static_cast<uint32_t>(thread);
}
uint32_t who(Kind kind, const Warp& warp, int lane) { return who(kind, warp.block->rank, warp.thread(lane)); }
Kind kind_of(uint32_t who) { return static_cast<Kind>(who >> kKindShift); }
int block_of(uint32_t who) { return static_cast<int>(who >> kBlockShift & 0x3ff); }
int thread_of(uint32_t who) { return static_cast<int>(who & kThreadBits); }

std::string name(uint32_t who) {
  switch (kind_of(who)) {
    case kThread:
      return "thread " + std::to_string(thread_of(who));
    case kOfWarp:
      return "several lanes of warp " + std::to_string(thread_of(who) / kLanes);
    default:
      return "several threads";
  }
}

bool ordered(const Warp& warp, int lane, uint64_t time, uint32_t by) {
  if (time < warp.cluster_time) return true;
  if (kind_of(by) == kOfCluster || block_of(by) != warp.block->rank) return false;
  if (time < warp.block_time) return true;
  if (kind_of(by) > kOfWarp || thread_of(by) / kLanes != warp.number) return false;
  return time < warp.warp_time || (kind_of(by) == kThread && thread_of(by) % kLanes == lane);
}

uint32_t joined(const Warp& warp, int lane, uint64_t time, uint32_t readers) {
  const uint32_t me = who(kThread, warp, lane);
  if (readers == me || time == 0 || ordered(warp, lane, time, readers)) return me;
  const bool of_block = block_of(readers) == warp.block->rank && kind_of(readers) <= kOfBlock;
  const bool of_warp = of_block && kind_of(readers) != kOfBlock && thread_of(readers) / kLanes == warp.number;
  return who(of_warp ? kOfWarp : of_block ? kOfBlock : kOfCluster, warp, lane);
}

}  // namespace ptx_machine
