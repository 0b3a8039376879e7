// Loads, stores, atomics and addresses, in every state space, with their bounds, alignment and order checked.

#include <cstring>

#include "global_memory.h"
#include "lanes.h"

namespace ptx_machine {
namespace {

constexpr uint64_t kLocalWindow = uint64_t{2} << 60, kWindowBits = uint64_t{15} << 60;
constexpr int kRankShift = 24;

uint64_t shared_window(int rank) { return SharedMemory::kWindow | static_cast<uint64_t>(rank) << kRankShift; }

void check_alignment(int lane, uint64_t address, uint32_t bytes) {
  if (address % bytes != 0)
    throw Fault(lane, std::to_string(bytes) + " bytes at an address that is " + std::to_string(address % bytes) +
                          " more than a multiple of them");
}

char* shared_place(Warp& warp, int lane, uint64_t address, uint32_t bytes, Use use, SharedMemory& shared) {
  const uint32_t at = static_cast<uint32_t>(address);
  if (use == Use::kRead || use == Use::kVolatile) return const_cast<char*>(shared.read(warp, lane, at, bytes));
  return use == Use::kWrite ? shared.write(warp, lane, at, bytes) : shared.change_atomically(warp, lane, at, bytes);
}

// Where the bytes at an address of a state space are on the host.
char* place(Warp& warp, int lane, Space space, uint64_t address, uint32_t bytes, Use use) {
  check_alignment(lane, address, bytes);
  if (space == Space::kGeneric) {
    const uint64_t window = address & kWindowBits;
    if (window == SharedMemory::kWindow) {
      const uint64_t rank = (address & ~kWindowBits) >> kRankShift;
      std::vector<Block>& blocks = warp.block->cluster->blocks;
      if (rank >= blocks.size()) throw Fault(lane, "shared memory of a block that its cluster does not have");
      if (rank != static_cast<uint64_t>(warp.block->rank) && warp.cluster_time == 0)
        throw Fault(lane, "touches another block's shared memory before a barrier of the cluster");
      return shared_place(warp, lane, address & ((1 << kRankShift) - 1), bytes, use, blocks[rank].shared);
    }
    space = window == kLocalWindow ? Space::kLocal : Space::kGlobal;
    address &= ~kWindowBits;
  }
  const Kernel& kernel = *warp.block->cluster->launch->kernel;
  switch (space) {
    case Space::kShared:
      if (address >> 32 != 0) throw Fault(lane, "an address that is none of shared memory");
      return shared_place(warp, lane, address, bytes, use, warp.block->shared);
    case Space::kLocal:
      if (address + bytes > kernel.local_bytes) throw Fault(lane, "reaches beyond its local memory");
      return warp.block->local.data() + size_t{kernel.local_bytes} * warp.thread(lane) + address;
    case Space::kParam:
      if (address + bytes > kernel.parameter_bytes) throw Fault(lane, "reads beyond the kernel's parameters");
      return const_cast<char*>(warp.block->cluster->launch->parameters.data()) + address;
    default:
      return global_place(warp, lane, address, bytes, use);
  }
}

uint64_t address_of(const Warp& warp, const Instruction& i, size_t operand, int lane) {
  const uint64_t base =
      i.widths[operand] == 8 ? warp.get<uint64_t>(i.at[operand], lane) : warp.get<uint32_t>(i.at[operand], lane);
  return base + i.number;
}

void put_element(Warp& warp, const Instruction& i, size_t n, int lane, const char* from) {
  uint64_t value = 0;
  std::memcpy(&value, from, i.bytes);
  const int unused = 64 - 8 * i.bytes;
  if (i.is_signed && unused > 0) value = static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
  if (i.widths[n] == 8)
    warp.put<uint64_t>(i.at[n], lane, value);
  else
    warp.put<uint32_t>(i.at[n], lane, static_cast<uint32_t>(value));
}

template <Use use>
void load(Warp& warp, const Instruction& i, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    const char* from = place(warp, lane, i.space, address_of(warp, i, i.count, lane), i.bytes * i.count, use);
    for (int n = 0; n < i.count; ++n) put_element(warp, i, n, lane, from + n * i.bytes);
  });
}

void store(Warp& warp, const Instruction& i, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    char* to = place(warp, lane, i.space, address_of(warp, i, 0, lane), i.bytes * i.count, Use::kWrite);
    for (int n = 0; n < i.count; ++n) {
      const uint64_t value =
          i.widths[n + 1] == 8 ? warp.get<uint64_t>(i.at[n + 1], lane) : warp.get<uint32_t>(i.at[n + 1], lane);
      std::memcpy(to + n * i.bytes, &value, i.bytes);
    }
  });
}

// {result, address, operand}
template <class T, class F>
void change(Warp& warp, const Instruction& i, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    char* at = place(warp, lane, i.space, address_of(warp, i, 1, lane), sizeof(T), Use::kAtomic);
    T before;
    std::memcpy(&before, at, sizeof(T));
    const T after = F{}(before, warp.get<T>(i.at[2], lane));
    std::memcpy(at, &after, sizeof(T));
    warp.put<T>(i.at[0], lane, before);
  });
}

template <class T>
Handler atomic(const std::string& operation) {
  const auto add = [](T a, T b) { return static_cast<T>(a + b); };
  const auto most = [](T a, T b) { return a < b ? b : a; };
  const auto least = [](T a, T b) { return b < a ? b : a; };
  const auto any = [](T a, T b) { return static_cast<T>(a | b); };
  return operation == "add"   ? &change<T, decltype(add)>
         : operation == "max" ? &change<T, decltype(most)>
         : operation == "min" ? &change<T, decltype(least)>
         : operation == "or"  ? &change<T, decltype(any)>
                              : throw std::runtime_error("unknown operation");
}

void set_space(Decoder& d) {
  Space& space = d.result.space;
  space = d.has("global")   ? Space::kGlobal
          : d.has("shared") ? Space::kShared
          : d.has("local")  ? Space::kLocal
          : d.has("param")  ? Space::kParam
                            : Space::kGeneric;
}

void set_access(Decoder& d) {
  const std::string& type = d.part.back();
  set_space(d);
  d.result.bytes = type_bytes(type);
  d.result.count = d.has("v2") ? 2 : d.has("v4") ? 4 : 1;
  d.result.is_signed = type[0] == 's';
}

bool decode_atomic(Decoder& d) {
  set_access(d);
  const std::string& type = d.part.back();
  const std::string& operation = d.part[d.part.size() - 2];
  const uint8_t width = lane_width(d.result.bytes);
  d.take(0, width), d.take_address(1), d.take(2, width);
  d.result.run = type == "u64"                    ? atomic<uint64_t>(operation)
                 : type == "s32"                  ? atomic<int32_t>(operation)
                 : type == "u32" || type == "b32" ? atomic<uint32_t>(operation)
                                                  : throw std::runtime_error("unknown type");
  return true;
}

void map_to_block(Warp& warp, const Instruction& i, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    const uint64_t address = warp.get<uint64_t>(i.at[1], lane);
    const uint32_t rank = warp.get<uint32_t>(i.at[2], lane);
    if ((address & kWindowBits) != SharedMemory::kWindow)
      throw Fault(lane, "maps an address that is not shared memory's");
    if (rank >= warp.block->cluster->blocks.size()) throw Fault(lane, "maps to a block that its cluster does not have");
    warp.put<uint64_t>(i.at[0], lane, shared_window(rank) | (address & ((1 << kRankShift) - 1)));
  });
}

// cvta: i.number says whether to generic addresses.
void convert_address(Warp& warp, const Instruction& i, Mask lanes) {
  each_lane(lanes, [&](int lane) {
    const uint64_t address = warp.get<uint64_t>(i.at[1], lane);
    const uint64_t window = i.space == Space::kShared  ? shared_window(warp.block->rank)
                            : i.space == Space::kLocal ? kLocalWindow
                                                       : 0;
    const bool to_generic = i.number != 0;
    if (!to_generic && (address & ~uint64_t{(1 << kRankShift) - 1}) != window && window != 0)
      throw Fault(lane, "an address of another state space");
    warp.put<uint64_t>(i.at[0], lane, to_generic ? address | window : window == 0 ? address : address - window);
  });
}

void do_nothing(Warp&, const Instruction&, Mask) {}

}  // namespace

bool decode_memory(Decoder& d) {
  Instruction& i = d.result;
  if (d.is("ld")) {
    set_access(d);
    d.take(0, lane_width(i.bytes)), d.take_address(1);
    if (i.at.size() != size_t{i.count} + 1) throw std::runtime_error("wrong number of operands");
    i.run = d.has("volatile") ? &load<Use::kVolatile> : &load<Use::kRead>;
  } else if (d.is("st")) {
    set_access(d);
    d.take_address(0), d.take(1, lane_width(i.bytes));
    if (i.at.size() != size_t{i.count} + 1) throw std::runtime_error("wrong number of operands");
    i.run = &store;
  } else if (d.is("atom")) {
    return decode_atomic(d);
  } else if (d.is("mapa")) {
    d.take(0, 8), d.take(1, 8), d.take(2, 4);
    i.run = &map_to_block;
  } else if (d.is("cvta")) {
    set_space(d);
    i.number = !d.has("to");
    d.take(0, 8), d.take(1, 8);
    i.run = &convert_address;
  } else if (d.is("prefetch") || d.is("membar")) {
    i.run = &do_nothing;
  } else {
    return false;
  }
  return true;
}

}  // namespace ptx_machine
