// Runs a grid: cluster after cluster, in each the warps by turns from barrier to barrier, in an order that varies.
#include "machine.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace ptx_machine {

uint64_t warpgroup_products = 0;

namespace {

constexpr uint32_t kNowhere = ~uint32_t{0};

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string place_of(const Kernel& kernel, const Instruction& i) {
  const auto file = kernel.files->find(i.file);
  const std::string source = file == kernel.files->end() ? "?" : file_name(file->second) + ":" + std::to_string(i.row);
  return source + " (line " + std::to_string(i.line) + " of the PTX)";
}

std::string text(const Dim& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

std::runtime_error located(const Warp& warp, const Instruction& i, int lane, const std::string& what) {
  const Kernel& kernel = *warp.block->cluster->launch->kernel;
  return std::runtime_error(what + ": thread " + std::to_string(warp.thread(lane)) + " of block " +
                            text(warp.block->index) + " at " + place_of(kernel, i) + ", " + kernel.name);
}

// Registers of products that are under way are nobody's until they have been waited for.
void check_busy(const Warp& warp, const Instruction& i) {
  for (const uint32_t at : i.at)
    if (warp.busy[at / 128])
      throw Fault(__builtin_ctz(warp.group), "touches a register of a product that was not waited for");
}

}  // namespace

// Picks the lanes that run next: those at the smallest place, and lanes that wait there for others.
bool Warp::choose(uint32_t& pc, uint32_t& join) {
  pc = join = kNowhere;
  each_lane(alive & ~waiting, [&](int lane) { pc = std::min(pc, place[lane]); });
  if (pc == kNowhere) return false;
  group = 0;
  each_lane(alive, [&](int lane) {
    if (place[lane] == pc)
      group |= Mask{1} << lane;
    else if (place[lane] > pc)
      join = std::min(join, place[lane]);
  });
  waiting &= ~group;
  return true;
}

void Warp::scatter(uint32_t pc) {
  each_lane(group, [&](int lane) { place[lane] = pc; });
}

Stop Warp::run() {
  const std::vector<Instruction>& code = block->cluster->launch->kernel->code;
  uint32_t pc, join;
  while (choose(pc, join)) {
    while (pc != join) {
      const Instruction& i = code[pc];
      Mask lanes = group;
      if (i.guarded) lanes &= i.guard_negated ? ~predicate(i.guard) : predicate(i.guard);
      try {
        if (i.flow == Flow::kNext) {
          if (lanes != 0) {
            if (!products.empty()) check_busy(*this, i);
            i.run(*this, i, lanes);
          }
          ++pc;
          continue;
        }
        if (i.flow == Flow::kBranch) {
          if (lanes == group) {
            pc = i.target;
            if (group == alive) continue;
            scatter(pc);
            break;
          }
          if (lanes == 0) {
            ++pc;
            continue;
          }
          each_lane(group, [&](int lane) { place[lane] = lanes >> lane & 1 ? i.target : pc + 1; });
          break;
        }
        if (i.flow == Flow::kExit) {
          const Launch& launch = *block->cluster->launch;
          if (launch.begins_early && (lanes & ~waited) != 0)
            throw Fault(__builtin_ctz(lanes & ~waited), "ends before it has waited for earlier kernels");
          alive &= ~lanes;
          group &= ~lanes;
          if (group == 0) break;
          ++pc;
          continue;
        }
        if (lanes == 0) {
          ++pc;
          continue;
        }
        Mask members = alive;
        if (i.members != 0) {
          members = get<uint32_t>(i.members, __builtin_ctz(lanes));
          if ((members & ~alive) != 0) throw Fault(__builtin_ctz(lanes), "waits for lanes that have ended");
        }
        if ((members & ~lanes) != 0) {  // some have not come yet
          if (lanes != group)
            throw Fault(__builtin_ctz(lanes), "meets others that this instruction's guard keeps away");
          scatter(pc);
          waiting |= group;
          if ((alive & ~waiting) == 0)
            throw Fault(__builtin_ctz(lanes), "waits in a divergent warp for lanes that wait elsewhere");
          break;
        }
        if (!products.empty() && !i.joins_products) check_busy(*this, i);
        if (i.run != nullptr) i.run(*this, i, lanes);
        ++pc;
        if (i.flow == Flow::kTogether) continue;
        scatter(pc);
        at_barrier = i.flow == Flow::kBlock;
        at_cluster_barrier = i.flow == Flow::kCluster;
        return at_barrier ? Stop::kBlockBarrier : Stop::kClusterBarrier;
      } catch (const Fault& fault) {
        throw located(*this, i, fault.lane, fault.what());
      }
    }
    if (pc == join) scatter(pc);
  }
  return Stop::kEnd;
}

namespace {

uint64_t latest_time = 1;  // of all launches so far

class Runner {
 public:
  explicit Runner(const Launch& launch) : launch_(launch), kernel_(*launch.kernel) {
    cluster_.launch = &launch;
    cluster_.launch_time = cluster_.time = ++latest_time;
    cluster_.blocks.resize(launch.cluster.count());
  }
  ~Runner() { latest_time = cluster_.time; }
  Runner(const Runner&) = delete;

  void run() {
    const Dim& grid = launch_.grid;
    const Dim& shape = launch_.cluster;
    for (uint32_t z = 0; z < grid.z; z += shape.z)
      for (uint32_t y = 0; y < grid.y; y += shape.y)
        for (uint32_t x = 0; x < grid.x; x += shape.x) run_cluster({x, y, z});
  }

 private:
  void prepare(Block& block, int rank, Dim index) {
    const int threads = static_cast<int>(launch_.block.count()), warps = (threads + kLanes - 1) / kLanes;
    const bool fresh = block.warps.empty();
    block.cluster = &cluster_;
    block.rank = rank;
    block.index = index;
    block.frames.resize(size_t{kernel_.frame_bytes} * warps, static_cast<char>(0xff));
    block.local.assign(size_t{kernel_.local_bytes} * warps * kLanes, static_cast<char>(0xff));
    block.shared.reset(kernel_.dynamic_offset + launch_.dynamic_bytes);
    block.warpgroup_products.assign((warps + 3) / 4, {});
    block.warps.assign(warps, Warp{});
    for (int w = 0; w < warps; ++w) {
      Warp& warp = block.warps[w];
      warp.block = &block;
      warp.number = w;
      warp.frame = block.frames.data() + size_t{kernel_.frame_bytes} * w;
      warp.alive = threads - w * kLanes >= kLanes ? ~Mask{0} : (Mask{1} << (threads - w * kLanes)) - 1;
      if (!kernel_.product_registers.empty()) warp.busy.assign(kernel_.frame_bytes / 128, false);
      if (fresh) std::copy(kernel_.constants.begin(), kernel_.constants.end(), warp.frame);
      set_special(warp);
    }
  }

  void set_special(Warp& warp) {
    const Dim &block = launch_.block, &grid = launch_.grid, &shape = launch_.cluster, &index = warp.block->index;
    for (const auto& [name, at] : kernel_.special)
      for (int lane = 0; lane < kLanes; ++lane) {
        const uint32_t thread = warp.thread(lane);
        warp.put<uint32_t>(at, lane,
                           name == "%tid.x"              ? thread % block.x
                           : name == "%tid.y"            ? thread / block.x % block.y
                           : name == "%tid.z"            ? thread / block.x / block.y
                           : name == "%ntid.x"           ? block.x
                           : name == "%ntid.y"           ? block.y
                           : name == "%ntid.z"           ? block.z
                           : name == "%ctaid.x"          ? index.x
                           : name == "%ctaid.y"          ? index.y
                           : name == "%ctaid.z"          ? index.z
                           : name == "%nctaid.x"         ? grid.x
                           : name == "%nctaid.y"         ? grid.y
                           : name == "%nctaid.z"         ? grid.z
                           : name == "%laneid"           ? lane
                           : name == "%cluster_ctarank"  ? warp.block->rank
                           : name == "%cluster_nctarank" ? shape.count()
                                                         : throw std::runtime_error("unknown register " + name));
      }
  }

  void run_cluster(Dim first) {
    const Dim& shape = launch_.cluster;
    std::vector<Warp*> ready;
    cluster_.begin_time = ++cluster_.time;
    for (uint32_t rank = 0; rank < shape.count(); ++rank) {
      const Dim index{first.x + rank % shape.x, first.y + rank / shape.x % shape.y, first.z + rank / shape.x / shape.y};
      prepare(cluster_.blocks[rank], static_cast<int>(rank), index);
    }
    for (Block& block : cluster_.blocks)
      for (Warp& warp : block.warps) ready.push_back(&warp);
    while (!ready.empty()) {
      std::shuffle(ready.begin(), ready.end(), order_);
      for (Warp* warp : ready) warp->run();
      ready = released();
    }
    for (const Block& block : cluster_.blocks) check_ended(block);
  }

  // The warps whose barrier all have reached.
  std::vector<Warp*> released() {
    std::vector<Warp*> ready;
    bool all_at_cluster_barrier = true;
    for (Block& block : cluster_.blocks) {
      const auto at_barrier = [](const Warp& warp) { return warp.at_barrier; };
      if (std::all_of(block.warps.begin(), block.warps.end(), at_barrier)) {
        ++cluster_.time;
        for (Warp& warp : block.warps) {
          warp.at_barrier = false;
          warp.block_time = warp.warp_time = cluster_.time;
          ready.push_back(&warp);
        }
      }
      for (const Warp& warp : block.warps) all_at_cluster_barrier &= warp.at_cluster_barrier;
    }
    if (!all_at_cluster_barrier) return ready;
    ++cluster_.time;
    for (Block& block : cluster_.blocks)
      for (Warp& warp : block.warps) {
        warp.at_cluster_barrier = false;
        warp.cluster_time = warp.block_time = warp.warp_time = cluster_.time;
        ready.push_back(&warp);
      }
    return ready;
  }

  void check_ended(const Block& block) const {
    for (const Warp& warp : block.warps) {
      if (warp.alive != 0)
        throw located(warp, kernel_.code[warp.place[__builtin_ctz(warp.alive)] - 1], __builtin_ctz(warp.alive),
                      "waits for others that never come");
      if (!warp.products.empty())
        throw std::runtime_error("a warp ends before it has waited for its products: " + kernel_.name);
      if (warp.num_products != block.warpgroup_products[warp.number / 4].size())
        throw std::runtime_error("the warps of a warpgroup make different products: " + kernel_.name);
    }
  }

  const Launch& launch_;
  const Kernel& kernel_;
  Cluster cluster_;
  std::mt19937 order_{1};
};

}  // namespace

void run(const Launch& launch) { Runner(launch).run(); }

}  // namespace ptx_machine
