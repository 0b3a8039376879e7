// Who touched a byte of memory, and whether a barrier lies between that and what a lane does now.
#pragma once
#include <cstdint>
#include <string>

namespace ptx_machine {

struct Warp;

// A thread, or several that no barrier separates.
enum Kind : uint32_t { kThread, kOfWarp, kOfBlock, kAtomic, kOfCluster };

// A kind, the rank of a block in its cluster and a thread of it in one number.
uint32_t who(Kind kind, int block, int thread);
uint32_t who(Kind kind, const Warp& warp, int lane);
Kind kind_of(uint32_t who);
int block_of(uint32_t who);
int thread_of(uint32_t who);
std::string name(uint32_t who);

// Whether what somebody of the lane's cluster did then happened before what the lane does now.
bool ordered(const Warp& warp, int lane, uint64_t time, uint32_t by);
// The lane together with those who have read since the last barrier; time 0: nobody has ever read.
uint32_t joined(const Warp& warp, int lane, uint64_t time, uint32_t readers);

}  // namespace ptx_machine
