// Runs a grid of threads as fibers: see cuda_runtime.h.
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
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

  bool runnable() const { return !finished && (waits_for == nullptr || waits_for->generation != generation); }
};

struct Block {
  std::vector<Group> warps;
  Group all;
};

std::vector<Fiber> fibers;
Place scheduler;
Block* block = nullptr;
Fiber* current = nullptr;
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

}  // namespace

void note_wait() { current->waited = true; }

unsigned lane() { return current->index.x % kWarp; }

void wait_for_block(Where where) { wait(block->all, where); }

const uint64_t* exchange(uint64_t value, Where where) {
  Group& warp = warp_of(*current);
  warp.posted[lane()] = value;
  wait(warp, where);
  return warp.values;
}

void run(dim3 grid, dim3 block_size, bool begins_early, const std::function<void()>& thread) {
  gridDim = grid;
  blockDim = block_size;
  body = &thread;
  must_wait = begins_early;
  error.clear();
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) blocks.emplace_back(x, y, z);
  std::shuffle(blocks.begin(), blocks.end(), shuffler);
  for (const dim3& index : blocks) {
    blockIdx = index;
    run_block(block_size.x);
    if (!error.empty()) throw std::runtime_error("cuda_emulation: " + error);
  }
}

}  // namespace cuda_emulation
