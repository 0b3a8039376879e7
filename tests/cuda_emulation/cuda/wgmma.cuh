// A warpgroup's products on the CPU, with the layouts of the PTX ISA (wgmma.m64n64k16, 128-byte swizzling). Each is
// made at once or only when it is waited for, as luck has it, so that a missing wait or barrier shows; until then its
// sums hold NaN. What may not be touched meanwhile, and what was not shown to products, is checked.
#pragma once
#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <vector>

#include "cp_async.cuh"
#include "cuda/swizzle.cuh"
#include "mma.cuh"

namespace cuda_emulation {

using Sums64 = float[8][4];

[[noreturn]] inline void wrong_product(const char* what) {
  throw std::runtime_error(std::string("cuda_emulation: a product ") + what);
}

// A thread's part of a product [64, 16] * [16, 64].
struct Product {
  Sums64* sums;
  const uint32_t* operand;  // the thread's registers
  uint32_t then[4];         // what they held
  Words left, right;        // those of the warp
  uint64_t descriptor;
  bool rows_of_operand, accumulate;
  float (*element)(uint32_t pair, int i);

  float right_operand(int k, int column) const {
    if (descriptor >> 62 != 1) wrong_product("reads a panel that is not swizzled by 128 bytes");
    const uint32_t start = (descriptor & 0x3fff) << 4, eight_rows = (descriptor >> 32 & 0x3fff) << 4;
    const int row = rows_of_operand ? k : column, inner = rows_of_operand ? column : k;
    uint32_t at = start + row / 8 * eight_rows + row % 8 * 128 + inner * 2;
    at ^= (at >> 7 & 7) << 4;
    if (at + 2 > dynamic_shared_bytes) wrong_product("reads beyond shared memory");
    if (unshown_by[at / 16]) wrong_product("reads what was written and not shown to products");
    uint16_t bits;
    std::memcpy(&bits, dynamic_shared + at, sizeof bits);
    return element(bits, 0);
  }

  float left_operand(int half, int k) const {
    const uint64_t words = (k < 8 ? left : right).of_lane[lane() / 4 * 4 + k % 8 / 2];
    return element(static_cast<uint32_t>(words >> 32 * half), k % 2);
  }

  void make(Sums64& to) const {
    if (!std::equal(then, then + 4, operand)) wrong_product("is under way and its operand has changed");
    float a[2][16];
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < 16; ++k) a[half][k] = left_operand(half, k);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 2; ++j) {
        float product[2] = {};
        for (int k = 0; k < 16; ++k) {
          const float b = right_operand(k, 8 * i + lane() % 4 * 2 + j);
          for (int half = 0; half < 2; ++half) product[half] += a[half][k] * b;
        }
        for (int half = 0; half < 2; ++half) {
          float& sum = to[i][half * 2 + j];
          sum = (accumulate ? sum : 0) + product[half];
        }
      }
  }
};

inline int64_t num_products = 0;

// A thread's products under way.
struct Products {
  struct Hidden {
    Sums64* sums;
    Sums64 value;
  };
  uint64_t block = 0;
  bool begun = false;
  size_t waits = 0;                            // so far
  std::deque<std::vector<Product>> groups{1};  // the one that is still open last
  std::vector<Hidden> hidden;                  // sums that hold NaN meanwhile

  Sums64& value_of(Sums64* sums) {
    for (Hidden& each : hidden)
      if (each.sums == sums) return each.value;
    hidden.push_back({sums, {}});
    std::memcpy(hidden.back().value, *sums, sizeof(Sums64));
    std::memset(*sums, 0xff, sizeof(Sums64));
    return hidden.back().value;
  }

  void add(const Product& product) {
    if (!begun) wrong_product("begins without begin_products");
    ++num_products;
    if (hidden.empty() && landing() % 2 == 0) return product.make(*product.sums);
    value_of(product.sums);
    groups.back().push_back(product);
  }

  void wait(size_t pending) {
    for (; groups.size() > pending + 1; groups.pop_front())
      for (const Product& product : groups.front()) product.make(value_of(product.sums));
    std::erase_if(hidden, [&](const Hidden& each) {
      for (const auto& group : groups)
        for (const Product& product : group)
          if (product.sums == each.sums) return false;
      const auto* bytes = reinterpret_cast<const unsigned char*>(*each.sums);
      if (!std::all_of(bytes, bytes + sizeof(Sums64), [](unsigned char byte) { return byte == 0xff; }))
        wrong_product("is under way and its sums have changed");
      std::memcpy(*each.sums, each.value, sizeof(Sums64));
      return true;
    });
    begun = false;
  }
};

inline Products& products_of_thread() {
  static Products of_thread[1024];
  Products& products = of_thread[threadIdx.x];
  if (products.block != block_number) products = Products{.block = block_number};
  return products;
}

// The calls that lead to a wait, which all threads of a warpgroup must come by in the same order.
using Calls = std::array<const void*, 2>;

inline void wait_as_one(const Calls& calls) {
  struct Warpgroup {
    uint64_t block;
    std::vector<Calls> waits;
  };
  static Warpgroup of_block[8];
  Warpgroup& warpgroup = of_block[threadIdx.x / 128];
  if (warpgroup.block != block_number) warpgroup = {block_number, {}};
  const size_t number = products_of_thread().waits++;
  if (number == warpgroup.waits.size()) warpgroup.waits.push_back(calls);
  if (warpgroup.waits[number] != calls) wrong_product("is waited for in different places by threads of a warpgroup");
}

}  // namespace cuda_emulation

namespace eagle::cuda {

using cuda_emulation::Sums64;

inline void show_to_products() {
  for (uint16_t& thread : cuda_emulation::unshown_by)
    if (thread == threadIdx.x + 1) thread = 0;
}

inline void begin_products() { cuda_emulation::products_of_thread().begun = true; }
inline void commit_products() { cuda_emulation::products_of_thread().groups.emplace_back(); }

template <int kPending>
[[gnu::noinline]] void wait_products() {
  cuda_emulation::wait_as_one({__builtin_return_address(0), __builtin_return_address(1)});
  cuda_emulation::products_of_thread().wait(kPending);
}

inline void settle(Sums64&) {}
inline void settle(uint32_t (&)[4]) {}

enum class Panel { kColumnsOfOperand = 0, kRowsOfOperand = 1 };

template <class T, Panel kPanel>
void multiply_64(Sums64& sums, const uint32_t (&a)[4], uint64_t b, bool accumulate, Where where = Where::current()) {
  cuda_emulation::products_of_thread().add({
      .sums = &sums,
      .operand = a,
      .then = {a[0], a[1], a[2], a[3]},
      .left = cuda_emulation::exchange_all(a[0] | static_cast<uint64_t>(a[1]) << 32, where),
      .right = cuda_emulation::exchange_all(a[2] | static_cast<uint64_t>(a[3]) << 32, where),
      .descriptor = b,
      .rows_of_operand = kPanel == Panel::kRowsOfOperand,
      .accumulate = accumulate,
      .element = cuda_emulation::element<T>,
  });
}

}  // namespace eagle::cuda
