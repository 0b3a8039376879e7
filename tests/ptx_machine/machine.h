// The machine: clusters of blocks of warps of 32 lanes, which run a kernel's decoded PTX one warp at a time.
//
// Lanes go their own ways: the group with the smallest place in the program runs, and others join it where they meet.
// Time is a counter that every barrier advances. An access to shared memory is ordered behind another one if a barrier
// lies between them, whatever order the machine happened to run them in.
#pragma once
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.h"
#include "shared_memory.h"

namespace ptx_machine {

struct Dim {
  uint32_t x = 1, y = 1, z = 1;
  uint32_t count() const { return x * y * z; }
};

struct Launch {
  const Kernel* kernel;
  Dim grid, block, cluster;
  uint32_t dynamic_bytes = 0;
  bool begins_early = false;  // may run before the kernels before it have ended, and has to wait for them
  std::vector<char> parameters;
};

// What a lane did wrong; the machine adds where.
struct Fault : std::runtime_error {
  Fault(int lane, const std::string& what) : std::runtime_error(what), lane(lane) {}
  int lane;
};

struct Block;

// Copies of a lane that are under way: cp.async.
struct Copy {
  int lane;
  uint32_t to, bytes;
  std::array<char, 16> data;
  uint32_t group;
};

// Products of a warp that are under way: wgmma.
struct Products {
  std::vector<std::array<uint32_t, 2>> read;  // address and bytes of what they read in shared memory
  std::vector<uint32_t> registers;
  bool committed = false;
};

enum class Stop { kBlockBarrier, kClusterBarrier, kEnd };

struct Warp {
  Block* block;
  int number;
  char* frame;
  Mask alive = 0, waiting = 0;                               // lanes that have not ended; that wait for others to come
  Mask group = 0;                                            // lanes that run
  std::array<uint32_t, kLanes> place{};                      // of the others, in the program
  Mask waited = 0;                                           // for earlier kernels
  uint64_t block_time = 0, cluster_time = 0, warp_time = 0;  // of the last barriers passed
  std::vector<Copy> copies;
  std::array<uint32_t, kLanes> copy_groups{};
  std::vector<Products> products;  // oldest first; the last may not be committed
  std::vector<bool> busy;          // registers of products, by offset in 128 bytes
  std::vector<char> fenced;        // values of product_registers at the last wgmma.fence, or empty
  size_t num_products = 0;
  std::vector<uint64_t> proxy_fences[kLanes];  // times of fence.proxy.async
  bool at_barrier = false, at_cluster_barrier = false;
  int cluster_arrivals = 0;

  Stop run();
  int thread(int lane) const { return number * kLanes + lane; }

  template <class T>
  T get(uint32_t at, int lane) const {
    T value;
    std::memcpy(&value, frame + at + lane * (sizeof(T) == 8 ? 8 : 4), sizeof(T));
    return value;
  }
  template <class T>
  void put(uint32_t at, int lane, T value) {
    if constexpr (sizeof(T) == 8) {
      std::memcpy(frame + at + lane * 8, &value, 8);
    } else {
      uint32_t word = 0;
      std::memcpy(&word, &value, sizeof(T));
      std::memcpy(frame + at + lane * 4, &word, 4);
    }
  }
  Mask predicate(uint32_t at) const { return get<uint32_t>(at, 0); }
  void put_predicate(uint32_t at, Mask lanes, Mask values) {
    put<uint32_t>(at, 0, (predicate(at) & ~lanes) | (values & lanes));
  }

 private:
  bool choose(uint32_t& pc, uint32_t& join);
  void scatter(uint32_t pc);
};

struct Cluster;

struct Block {
  Cluster* cluster;
  int rank;
  Dim index;
  std::vector<Warp> warps;
  std::vector<char> frames, local;
  SharedMemory shared;
  std::vector<std::vector<std::array<uint64_t, 2>>> warpgroup_products;  // place and descriptor of each, by warpgroup
};

struct Cluster {
  const Launch* launch;
  std::vector<Block> blocks;
  uint64_t launch_time, begin_time,
      time;  // of the launch's beginning, of the cluster's, and now: later in every launch
};

template <class Body>
void each_lane(Mask lanes, const Body& body) {
  for (; lanes != 0; lanes &= lanes - 1) body(__builtin_ctz(lanes));
}

// Raises std::runtime_error that names the kernel, the thread and the source where something is wrong.
void run(const Launch& launch);

// Of all launches so far.
extern uint64_t warpgroup_products;

}  // namespace ptx_machine
