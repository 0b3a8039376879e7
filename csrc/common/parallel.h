// The thread pool as CPU kernels see it: torch's own parallel_for, handed down without a torch header.
#pragma once
#include <cstdint>

namespace eagle {

// Calls body(context, begin, end) on sub-ranges of [0, size) of at least `grain` items, in parallel.
using ParallelBody = void (*)(void* context, int64_t begin, int64_t end);
using ParallelRun = void (*)(int64_t size, int64_t grain, ParallelBody body, void* context);

class ParallelFor {
 public:
  explicit ParallelFor(ParallelRun run) : run_(run) {}

  // body(begin, end) is called on disjoint sub-ranges that cover [0, size).
  template <class Body>
  void operator()(int64_t size, int64_t grain, const Body& body) const {
    run_(
        size, grain,
        [](void* context, int64_t begin, int64_t end) { (*static_cast<const Body*>(context))(begin, end); },
        const_cast<Body*>(&body));
  }

 private:
  ParallelRun run_;
};

}  // namespace eagle
