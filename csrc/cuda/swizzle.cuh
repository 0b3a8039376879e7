// Where 16-byte chunks lie in shared memory, so that tensor cores read them without bank conflicts.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace eagle::cuda {

constexpr int kPanelColumns = 64;    // 16-bit elements
constexpr int kPanelRowBytes = 128;  // every bank once

// Byte offset of chunk 0..7 of a row in a panel of 128-byte rows. The chunk is mixed with the row's low bits, so that
// eight rows at one logical chunk lie in eight different bank groups.
EAGLE_HOST_DEVICE uint32_t swizzled(int row, int chunk) { return row * kPanelRowBytes + (chunk ^ (row & 7)) * 16; }

EAGLE_HOST_DEVICE constexpr int panels(int columns) { return (columns + kPanelColumns - 1) / kPanelColumns; }
EAGLE_HOST_DEVICE constexpr int tile_bytes(int rows, int columns) { return rows * panels(columns) * kPanelRowBytes; }

// The same in a tile of kRows wider rows, panel after panel. Over a loop of constant chunks only the mixed bits take
// registers; the panel is an offset in the instructions.
template <int kRows>
EAGLE_HOST_DEVICE uint32_t tile_offset(int row, int chunk) {
  return swizzled(row, chunk & 7) + (chunk >> 3) * (kRows * kPanelRowBytes);
}

// How wgmma is told of a panel that begins at `address`, a multiple of 1024: 128-byte swizzling, eight rows every 1024
// bytes. An operand is one panel wide, so that no other stride is needed. Source: PTX ISA, "matrix descriptor format".
EAGLE_HOST_DEVICE uint64_t panel_descriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = 1, kEightRows = 8 * kPanelRowBytes >> 4;
  return kSwizzle128 << 62 | kEightRows << 32 | (address >> 4 & 0x3fff);
}

// What is added to a descriptor for an operand that begins `bytes` later: 32 for the next 16 columns of its panel, 128
// for the next row.
EAGLE_HOST_DEVICE constexpr uint64_t described(int bytes) { return bytes >> 4; }

}  // namespace eagle::cuda
