// The GPU's memory: which of the host's counts as it, and who touched each of its bytes when.
#pragma once
#include <cstdint>
#include <string>

namespace ptx_machine {

struct Warp;

// kVolatile: a read that may meet the atomic changes of others.
enum class Use { kRead, kVolatile, kWrite, kAtomic };

// Allocations may overlap: views of one tensor. begins_empty: must not be read before something has been written.
void add_global(const void* address, uint64_t bytes, bool begins_empty);
void remove_global(const void* address);
void forget_globals();

// Whether all of the bytes lie in one allocation.
bool is_global(uint64_t address, uint64_t bytes);
// The host writes.
void set_global(uint64_t address, int value, uint64_t bytes);

// Bytes for a lane. Raises Fault where they belong to no allocation, hold nothing yet, or are touched by others of the
// same launch, not all of them atomically, with no barrier between. No barrier reaches beyond a cluster.
char* global_place(const Warp& warp, int lane, uint64_t address, uint32_t bytes, Use use);

}  // namespace ptx_machine
