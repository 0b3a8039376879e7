// wgmma: 64x16 by 16x64 products of a warpgroup, the left operand in registers, the right one in shared memory.
//
// Each warp computes its 16 rows as soon as it comes, since nobody may touch what is read or written until it has been
// waited for. Source: PTX ISA, "asynchronous warpgroup level matrix instructions", "matrix descriptor format" and
// "strides".
#include <algorithm>

#include "lanes.h"
#include "products.h"

namespace ptx_machine {
namespace {

constexpr int kSums = 32, kColumns = 64, kInner = 16;
constexpr int kLeft = kSums, kDescriptor = kSums + 4, kAccumulates = kSums + 5;  // among the operands

struct Descriptor {
  uint32_t start, leading_bytes, stride_bytes;

  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4),
        leading_bytes((bits >> 16 & 0x3fff) << 4),
        stride_bytes((bits >> 32 & 0x3fff) << 4) {
    if (bits >> 62 != 1) throw Fault(0, "describes a matrix without swizzling of 128 bytes");
    if ((bits >> 49 & 7) != 0) throw Fault(0, "describes a matrix with a base offset");
  }

  // Of element (k, column) of the right operand: columns of it are 128-byte rows of memory, or its rows are.
  uint32_t address(int k, int column, bool rows_of_operand) const {
    const uint32_t plain =
        rows_of_operand ? start + column / 64 * leading_bytes + k / 8 * stride_bytes + k % 8 * 128 + column % 64 * 2
                        : start + column / 8 * stride_bytes + column % 8 * 128 + k * 2;
    return plain ^ (plain >> 7 & 7) << 4;
  }
};

// Sums that are not added to may be anything before. The compiler still moves values to the registers of an asm
// statement behind the fence, which the assembler undoes: what counts is whether the values changed.
void check_fenced(const Warp& warp, const Instruction& i, bool accumulates) {
  if (warp.fenced.empty()) throw Fault(0, "multiplies without wgmma.fence before");
  const std::vector<uint32_t>& registers = warp.block->cluster->launch->kernel->product_registers;
  for (int n = accumulates ? 0 : kLeft; n < kDescriptor; ++n) {
    const size_t number = std::lower_bound(registers.begin(), registers.end(), i.at[n]) - registers.begin();
    if (std::memcmp(warp.frame + i.at[n], &warp.fenced[number * 128], 128) != 0)
      throw Fault(0, "multiplies with a register that has changed since wgmma.fence");
  }
}

// The four warps must make the same products; a warp's place in the list is how many it has made.
void note_product(Warp& warp, const Instruction& i, uint64_t descriptor) {
  auto& products = warp.block->warpgroup_products[warp.number / 4];
  const std::array<uint64_t, 2> mine = {i.line, descriptor};
  if (warp.num_products == products.size()) products.push_back(mine);
  if (products[warp.num_products++] != mine) throw Fault(0, "the warps of a warpgroup make different products");
  if (warp.number % 4 == 0) ++warpgroup_products;
}

void mark_busy(Warp& warp, const Instruction& i) {
  for (int n = 0; n < kDescriptor; ++n) {
    warp.products.back().registers.push_back(i.at[n]);
    warp.busy[i.at[n] / 128] = true;
  }
}

// {32 sums, four words of the left operand, descriptor, whether to add to the sums}; i.number: the panel's rows are
// rows of the right operand.
template <float (*kToFloat)(uint32_t)>
void multiply(Warp& warp, const Instruction& i, Mask lanes) {
  if (lanes != ~Mask{0}) throw Fault(__builtin_ctz(~lanes), "is missing among the lanes that multiply");
  if (warp.block->warps.size() % 4 != 0) throw Fault(0, "multiplies in a block without whole warpgroups");
  const uint64_t bits = warp.get<uint64_t>(i.at[kDescriptor], 0);
  const Mask accumulates = warp.predicate(i.at[kAccumulates]);
  if (accumulates != 0 && accumulates != ~Mask{0}) throw Fault(0, "adds to the sums of some lanes only");
  for (int lane = 1; lane < kLanes; ++lane)
    if (warp.get<uint64_t>(i.at[kDescriptor], lane) != bits) throw Fault(lane, "has another descriptor than lane 0");
  check_fenced(warp, i, accumulates != 0);
  note_product(warp, i, bits);
  if (warp.products.empty() || warp.products.back().committed) warp.products.emplace_back();

  const Descriptor descriptor(bits);
  static float b[kInner][kColumns], sums[16][kColumns];
  SharedMemory& shared = warp.block->shared;
  for (int k = 0; k < kInner; ++k)
    for (int column = 0; column < kColumns; ++column) {
      const uint32_t at = descriptor.address(k, column, i.number != 0);
      uint16_t element;
      std::memcpy(&element, shared.begin_product(warp, at, 2), 2);
      warp.products.back().read.push_back({at, 2});
      b[k][column] = kToFloat(element);
    }
  const LeftOperand a = left_operand(warp, &i.at[kLeft], kToFloat);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int n = 0; n < kSums; ++n)
      sums[lane / 4 + n / 2 % 2 * 8][n / 4 * 8 + lane % 4 * 2 + n % 2] =
          accumulates != 0 ? warp.get<float>(i.at[n], lane) : 0;
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kInner; ++k)
      for (int column = 0; column < kColumns; ++column) sums[row][column] += a[row][k] * b[k][column];
  const std::vector<uint32_t>& registers = warp.block->cluster->launch->kernel->product_registers;
  for (int n = 0; n < kSums; ++n) {
    for (int lane = 0; lane < kLanes; ++lane)
      warp.put<float>(i.at[n], lane, sums[lane / 4 + n / 2 % 2 * 8][n / 4 * 8 + lane % 4 * 2 + n % 2]);
    const size_t number = std::lower_bound(registers.begin(), registers.end(), i.at[n]) - registers.begin();
    std::memcpy(&warp.fenced[number * 128], warp.frame + i.at[n], 128);  // the next product may add to it
  }
  mark_busy(warp, i);
}

void fence(Warp& warp, const Instruction&, Mask) {
  const std::vector<uint32_t>& registers = warp.block->cluster->launch->kernel->product_registers;
  warp.fenced.resize(registers.size() * 128);
  for (size_t n = 0; n < registers.size(); ++n) std::memcpy(&warp.fenced[n * 128], warp.frame + registers[n], 128);
}

void commit(Warp& warp, const Instruction&, Mask) {
  if (warp.products.empty() || warp.products.back().committed) warp.products.emplace_back();
  warp.products.back().committed = true;
}

// Until at most i.number groups are under way.
void wait(Warp& warp, const Instruction& i, Mask) {
  std::vector<Products>& products = warp.products;
  const bool open = !products.empty() && !products.back().committed;
  while (static_cast<int64_t>(products.size()) - open > i.number) {
    for (const auto& [at, bytes] : products.front().read) warp.block->shared.end_product(warp, at, bytes);
    products.erase(products.begin());
  }
  std::fill(warp.busy.begin(), warp.busy.end(), false);
  for (const Products& group : products)
    for (const uint32_t at : group.registers) warp.busy[at / 128] = true;
}

void show_to_products(Warp& warp, const Instruction&, Mask lanes) {
  const uint64_t now = ++warp.block->cluster->time;
  each_lane(lanes, [&](int lane) { warp.proxy_fences[lane].push_back(now); });
}

}  // namespace

bool decode_warpgroup(Decoder& d) {
  Instruction& i = d.result;
  if (d.opcode == "fence.proxy.async.shared::cta") return i.run = &show_to_products, true;
  if (!d.is("wgmma")) return false;
  i.flow = Flow::kTogether;
  if (d.opcode == "wgmma.fence.sync.aligned") {
    i.run = &fence;
  } else if (d.opcode == "wgmma.commit_group.sync.aligned") {
    i.run = &commit;
  } else if (d.opcode == "wgmma.wait_group.sync.aligned") {
    i.number = d.literal(0);
    i.run = &wait;
  } else if (d.opcode == "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16" ||
             d.opcode == "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16") {
    d.take(0, 4), d.take(1, 4), d.take(2, 8), d.take(3, 0);
    if (i.at.size() != kAccumulates + 1 || d.literal(4) != 1 || d.literal(5) != 1)
      throw std::runtime_error("only sums and left operands in registers are known, neither of them negated");
    i.number = d.literal(6);
    i.joins_products = true;
    i.run = d.has("bf16") ? &multiply<to_bfloat16> : &multiply<to_float16>;
    for (int n = 0; n < kDescriptor; ++n) d.kernel().product_registers.push_back(i.at[n]);
  } else {
    return false;
  }
  return true;
}

}  // namespace ptx_machine
