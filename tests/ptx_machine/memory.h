// Global memory for the instructions that touch it.
#pragma once
#include "machine.h"

namespace ptx_machine {

// Checked bytes of global memory. Raises Fault.
char* global_place(const Warp& warp, int lane, uint64_t address, uint32_t bytes);

}  // namespace ptx_machine
