// Runs a grid of threads as fibers: see cuda_runtime.h.
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_emulation {
namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStackBytes = 64 << 10;
constexpr unsigned kLongestSleep = 64;  // turns
std::mt19937 shuffler(0);

// Fibers that wait for one another.
struct Group {
  unsigned members = 0, arrived = 0;
  uint64_t generation = 0;
  Where where;
  uint64_t posted[kWarp], values[kWarp];  // of a warp's exchange
  unsigned sleeps = 0;                    // turns that a warp lets pass

  // Now and then a warp falls behind the others.
  void doze() {
    if (sleeps > 0)
      --sleeps;
    else if (shuffler() % 16 == 0)
      sleeps = shuffler() % kLongestSleep;
  }

  void release_if_complete() {
    if (arrived == 0 || arrived < members) return;
    arrived = 0;
    ++generation;
    std::copy_n(posted, kWarp, values);
  }
};

using Place = void* [5];  // to go on from: __builtin_setjmp, which saves no more than it must

// A thread of one block after another.
struct Fiber {
  Place resume_point;
  ucontext_t start;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  dim3 index;
  Group* waits_for;
  uint64_t generation;
  bool started = false, finished = true, waited;
  unsigned meetings;  // with the other blocks of its cluster

  bool runnable() const { return !finished && (waits_for == nullptr || waits_for->generation != generation); }
};

struct Block {
  std::vector<Group> warps;
  Group all;
  unsigned meetings = 0;
};

// The blocks that run at the same time, a thread for each; whoever holds the lock is the one that works.
struct Cluster {
  std::vector<char*> shared_memory;  // of each block
  unsigned unfinished, arrived = 0;
  uint64_t generation = 0;
  std::mutex mutex;
  std::condition_variable changed;

  explicit Cluster(unsigned blocks) : shared_memory(blocks), unfinished(blocks) {}
};

// Of this block.
thread_local std::vector<Fiber> fibers;
thread_local Place scheduler;
thread_local Block* block = nullptr;
thread_local Fiber* current = nullptr;
thread_local std::unique_lock<std::mutex> turn;
// Of the kernel.
Cluster* cluster = nullptr;
const std::function<void()>* body = nullptr;
bool must_wait = false;
std::string error;

Group& warp_of(const Fiber& fiber) { return block->warps[fiber.index.x / kWarp]; }

[[noreturn]] void leave() { __builtin_longjmp(scheduler, 1); }

bool same(Where a, Where b) {
  return a.line() == b.line() && (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

void check_waited() {
  if (must_wait && !current->waited && error.empty()) error = "a thread does not wait for earlier kernels";
}

void wait(Group& group, Where where) {
  check_waited();
  if (group.arrived == 0) group.where = where;
  if (error.empty() && !same(group.where, where))
    error = std::string("threads meet in different collectives: ") + where.file_name() + ":" +
            std::to_string(where.line()) + " and " + group.where.file_name() + ":" + std::to_string(group.where.line());
  current->waits_for = &group;
  current->generation = group.generation;
  ++group.arrived;
  group.release_if_complete();
  if (__builtin_setjmp(current->resume_point) == 0) leave();
}

void run_thread() {
  try {
    (*body)();
    check_waited();
  } catch (const std::exception& failure) {
    error = failure.what();
  }
  current->finished = true;
  --block->all.members;
  --warp_of(*current).members;
  block->all.release_if_complete();
  warp_of(*current).release_if_complete();
}

void enter() {
  for (;;) {
    run_thread();
    if (__builtin_setjmp(current->resume_point) == 0) leave();
  }
}

void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  fiber.waits_for = nullptr;
  if (__builtin_setjmp(scheduler) != 0) return;
  if (fiber.started) __builtin_longjmp(fiber.resume_point, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

void start_fibers(unsigned threads) {
  while (fibers.size() < threads) fibers.emplace_back();
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.index = dim3(t, 0, 0);
    fiber.waits_for = nullptr;
    if (!fiber.finished) fiber.started = false;  // an error left it in the middle of a kernel
    fiber.finished = fiber.waited = false;
    fiber.meetings = 0;
    if (fiber.started) continue;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = kStackBytes;
    makecontext(&fiber.start, enter, 0);
  }
}

void run_block(unsigned threads) {
  Block state{std::vector<Group>((threads + kWarp - 1) / kWarp), {}};
  block = &state;
  ++block_number;
  state.all.members = threads;
  for (unsigned t = 0; t < threads; ++t) ++state.warps[t / kWarp].members;
  start_fibers(threads);

  std::vector<Fiber*> order;
  for (unsigned t = 0; t < threads; ++t) order.push_back(&fibers[t]);
  for (bool progress = true; progress && error.empty();) {
    progress = false;
    unsigned shortest = kLongestSleep;  // sleep among warps that could go on
#ifndef CUDA_EMULATION_IN_ORDER
    for (Group& warp : state.warps) warp.doze();
    std::shuffle(order.begin(), order.end(), shuffler);
#endif
    for (Fiber* fiber : order) {
      if (!fiber->runnable()) continue;
      progress = true;
      shortest = std::min(shortest, warp_of(*fiber).sleeps);
      if (warp_of(*fiber).sleeps == 0) resume(*fiber);
    }
    for (Group& warp : state.warps) warp.sleeps -= std::min(warp.sleeps, shortest);  // all sleep: until one wakes
  }
  const bool finished = std::all_of(order.begin(), order.end(), [](Fiber* fiber) { return fiber->finished; });
  if (error.empty() && !finished) error = "some threads wait in a collective that the others never reach";
}

// For blocks that wait, or will, when some of their cluster have ended.
void miss_blocks() {
  if (error.empty()) error = "some blocks of a cluster wait for one that has ended";
}

// Lets the other blocks of the cluster work until all are here.
void meet_blocks() {
  const uint64_t before = cluster->generation;
  if (cluster->unfinished < cluster_blocks()) {
    miss_blocks();
  } else if (++cluster->arrived == cluster_blocks()) {
    cluster->arrived = 0;
    ++cluster->generation;
    cluster->changed.notify_all();
  } else {
    cluster->changed.wait(turn, [&] { return cluster->generation != before || !error.empty(); });
  }
}

dim3 block_of(dim3 first, unsigned rank) {
  const dim3& shape = cluster_shape;
  return dim3(first.x + rank % shape.x, first.y + rank / shape.x % shape.y, first.z + rank / (shape.x * shape.y));
}

void run_block_of_cluster(dim3 index, unsigned threads, std::vector<Fiber>& kept) {
  turn = std::unique_lock(cluster->mutex);
  blockIdx = index;
  std::memset(dynamic_shared, 0xff, sizeof dynamic_shared);
  fibers.swap(kept);
  for (Fiber& fiber : fibers) fiber.started = false;  // another thread started it
  run_block(threads);
  fibers.swap(kept);
  --cluster->unfinished;
  if (cluster->arrived > 0) miss_blocks();
  cluster->changed.notify_all();
  turn.unlock();
}

void run_cluster(dim3 first, unsigned threads) {
  static std::vector<std::vector<Fiber>> kept;  // for their stacks
  kept.resize(std::max<size_t>(kept.size(), cluster_blocks()));
  Cluster state(cluster_blocks());
  cluster = &state;
  std::vector<unsigned> ranks(cluster_blocks());
  std::iota(ranks.begin(), ranks.end(), 0);
  std::shuffle(ranks.begin(), ranks.end(), shuffler);
  std::vector<std::thread> blocks;
  for (const unsigned rank : ranks)
    blocks.emplace_back(run_block_of_cluster, block_of(first, rank), threads, std::ref(kept[rank]));
  for (std::thread& thread : blocks) thread.join();
}

}  // namespace

void note_wait() { current->waited = true; }

unsigned lane() { return current->index.x % kWarp; }

void wait_for_block(Where where) { wait(block->all, where); }

unsigned cluster_rank() {
  const dim3& shape = cluster_shape;
  return blockIdx.x % shape.x + (blockIdx.y % shape.y + blockIdx.z % shape.z * shape.y) * shape.x;
}

void wait_for_cluster(char* shared_memory, Where where) {
  wait(block->all, where);
  if (cluster_blocks() == 1 || ++current->meetings == block->meetings) return;
  ++block->meetings;  // the first thread to go on goes for all
  cluster->shared_memory[cluster_rank()] = shared_memory;
  meet_blocks();
}

char* shared_memory_of(int rank) {
  char* const found = cluster->shared_memory.at(rank);
  if (found == nullptr) throw std::runtime_error("a block reaches into another before it has waited for it");
  return found;
}

const uint64_t* exchange(uint64_t value, Where where) {
  Group& warp = warp_of(*current);
  warp.posted[lane()] = value;
  wait(warp, where);
  return warp.values;
}

void run(dim3 grid, dim3 block_size, dim3 cluster_dimensions, bool begins_early, const std::function<void()>& thread) {
  gridDim = grid;
  blockDim = block_size;
  cluster_shape = cluster_dimensions;
  body = &thread;
  must_wait = begins_early;
  error.clear();
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < grid.z; z += cluster_shape.z)
    for (unsigned y = 0; y < grid.y; y += cluster_shape.y)
      for (unsigned x = 0; x < grid.x; x += cluster_shape.x) blocks.emplace_back(x, y, z);
  std::shuffle(blocks.begin(), blocks.end(), shuffler);
  for (const dim3& index : blocks) {
    blockIdx = index;
    if (cluster_blocks() > 1)
      run_cluster(index, block_size.x);
    else
      run_block(block_size.x);
    if (!error.empty()) throw std::runtime_error("cuda_emulation: " + error);
  }
}

}  // namespace cuda_emulation
