// Which of the host's memory counts as the GPU's.
#pragma once
#include <cstdint>
#include <string>

namespace ptx_machine {

// Allocations may overlap: views of one tensor.
void add_global(const void* address, uint64_t bytes);
void remove_global(const void* address);
void forget_globals();

// Whether all of the bytes lie in one allocation.
bool is_global(uint64_t address, uint64_t bytes);
// Where the closest allocation lies, in words.
std::string nearest_global(uint64_t address);

}  // namespace ptx_machine
