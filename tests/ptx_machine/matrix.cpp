// A warp's matrices: ldmatrix, and mma.sync of 16x16 by 16x8. Source of the layouts: PTX ISA, "matrix fragments for
// mma.m16n8k16" and "ldmatrix".
#include <array>

#include "lanes.h"
#include "products.h"

namespace ptx_machine {
namespace {

// {results..., address}; i.count matrices of 8 rows of 16 bytes, whose addresses come from eight lanes each.
template <bool kTransposed>
void load_matrices(Warp& warp, const Instruction& i, Mask) {
  std::array<uint16_t, 64> matrix;
  for (int m = 0; m < i.count; ++m) {
    for (int row = 0; row < 8; ++row) {
      const int lane = 8 * m + row;
      const uint32_t at = static_cast<uint32_t>(warp.get<uint32_t>(i.at[i.count], lane) + i.number);
      if (at % 16 != 0) throw Fault(lane, "a row of a matrix at an address that is no multiple of 16");
      std::memcpy(&matrix[8 * row], warp.block->shared.read(warp, lane, at, 16), 16);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto element = [&](int row, int column) {
        return matrix[kTransposed ? 8 * column + row : 8 * row + column];
      };
      const int row = lane / 4, column = lane % 4 * 2;
      warp.put<uint32_t>(i.at[m], lane, element(row, column) | uint32_t{element(row, column + 1)} << 16);
    }
  }
}

// {four sums, four words of a, two words of b, four sums to add to}
template <float (*kToFloat)(uint32_t)>
void multiply(Warp& warp, const Instruction& i, Mask) {
  const LeftOperand a = left_operand(warp, &i.at[4], kToFloat);
  float b[16][8], sums[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int column = lane / 4, k = lane % 4 * 2;
    for (int half = 0; half < 2; ++half) {
      const uint32_t pair = warp.get<uint32_t>(i.at[8 + half], lane);
      b[k + 8 * half][column] = kToFloat(pair & 0xffff);
      b[k + 8 * half + 1][column] = kToFloat(pair >> 16);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane)
    for (int n = 0; n < 4; ++n) sums[lane / 4 + n / 2 * 8][lane % 4 * 2 + n % 2] = warp.get<float>(i.at[10 + n], lane);
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) sums[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kLanes; ++lane)
    for (int n = 0; n < 4; ++n) warp.put<float>(i.at[n], lane, sums[lane / 4 + n / 2 * 8][lane % 4 * 2 + n % 2]);
}

}  // namespace

bool decode_matrix(Decoder& d) {
  Instruction& i = d.result;
  i.flow = Flow::kTogether;
  if (d.is("ldmatrix") && d.has("m8n8") && d.has("shared") && d.has("b16")) {
    d.take(0, 4);
    i.count = static_cast<uint8_t>(i.at.size());
    if (!d.has("x" + std::to_string(i.count))) throw std::runtime_error("wrong number of results");
    d.take_address(1);
    if (i.widths.back() != 4) throw std::runtime_error("an address of shared memory has 32 bits here");
    i.run = d.has("trans") ? &load_matrices<true> : &load_matrices<false>;
  } else if (d.opcode == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" ||
             d.opcode == "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32") {
    for (size_t n = 0; n < 4; ++n) d.take(n, 4);
    if (i.at.size() != 14) throw std::runtime_error("wrong number of registers");
    i.run = d.has("bf16") ? &multiply<to_bfloat16> : &multiply<to_float16>;
  } else {
    i.flow = Flow::kNext;
    return false;
  }
  return true;
}

}  // namespace ptx_machine
