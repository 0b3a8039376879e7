// verify_rejection: the whole device summarizes the rows, a block per row finds what the filters keep, and a cluster of
// blocks per request walks the tree, computing residuals on the fly.
#include "common/verify_rejection.h"
#include "cuda/dependent.cuh"
#include "cuda/residual.cuh"
#include "cuda/walked_tree.cuh"

namespace eagle::cuda {
namespace {

// The rows of the target or of the draft, a row for each node of each request.
struct Laws {
  LogitsView logits;
  int64_t vocabulary;
  RowLaw* of_row;  // [batch * num_nodes]
  float* groups;   // [2, batch * num_nodes, num_groups]

  __device__ LawView at(const VerifyRejectionParams& p, int64_t row) const {
    const int64_t b = row / p.num_nodes, element = logits.dtype == DType::kFloat32 ? 4 : 2;
    const int64_t offset = b * logits.batch_stride + (row - b * p.num_nodes) * logits.row_stride;
    return {static_cast<const char*>(logits.data) + offset * element,
            logits.dtype,
            vocabulary,
            groups + row * num_groups(vocabulary),
            of_row[row],
            p.requests.temperature[b]};
  }
};

struct Workspace {
  Laws target, draft;
  Node* nodes;       // [batch, kClusterBlocks, num_nodes], for trees of more than kMaxNodes
  Step* steps;       // the same
  int32_t* inverse;  // [vocabulary]
  int64_t bytes;

  Workspace(const VerifyRejectionParams& p, void* base)
      : target{p.target_logits, p.vocabulary}, draft{p.draft_logits, p.draft_vocabulary}, bytes(0) {
    const int64_t rows = p.batch * p.num_nodes;
    for (Laws* laws : {&target, &draft}) {
      place(laws->of_row, rows, base);
      place(laws->groups, 2 * rows * num_groups(laws->vocabulary), base);
    }
    const int64_t in_global = p.num_nodes > kMaxNodes ? rows * kClusterBlocks : 0;
    place(nodes, in_global, base);
    place(steps, in_global, base);
    place(inverse, p.d2t ? p.vocabulary : 0, base);
  }

 private:
  template <class T>
  void place(T*& array, int64_t count, void* base) {
    array = reinterpret_cast<T*>(static_cast<char*>(base) + bytes);
    bytes += ceil_div(count * static_cast<int64_t>(sizeof(T)), 16) * 16;
  }
};

SummaryParams summary_params(const VerifyRejectionParams& p, const Laws& laws) {
  return {
      .logits = laws.logits.data,
      .dtype = laws.logits.dtype,
      .batch_stride = laws.logits.batch_stride,
      .row_stride = laws.logits.row_stride,
      .batch = p.batch,
      .rows = p.num_nodes,
      .vocabulary = laws.vocabulary,
      .temperature = p.requests.temperature,
      .top_p = p.requests.top_p,
      .group_max = laws.groups,
      .group_sum = laws.groups + p.batch * p.num_nodes * num_groups(laws.vocabulary),
  };
}

// grid: batch * num_nodes.
template <class T>
__global__ void __launch_bounds__(kSelectThreads, 1)
    find_laws(const VerifyRejectionParams p, const SummaryParams summary, RowLaw* laws) {
  wait_for_earlier_kernels();
  __shared__ Selection selection;
  const int64_t r = blockIdx.x, groups = num_groups(summary.vocabulary);
  const float* group_max = summary.group_max + r * groups;
  const RowSummary of_row = summarize_groups(group_max, groups);
  const SamplingParams params = p.requests.of(r / p.num_nodes);
  RowLaw law{of_row.valid ? of_row.max : INFINITY, {INFINITY, 0}, -1, kNever};
  if (of_row.valid) {
    const Row<T> row = logits_row<T>(summary, r);
    if (params.temperature > 0)
      law.keep = RowFilter<T>{selection,
                              {row, group_max, RowOrdinals<T, Ties::kHighestToken>(summary.vocabulary)},
                              params,
                              of_row.max,
                              summary.group_sum + r * groups}
                     .find_keep();
    else
      law.top = lowest_argmax(row, group_max, of_row.max);
  }
  if (threadIdx.x == 0) laws[r] = law;
}

constexpr int kWalkThreads = 512;

// Whether a node has children, to all threads of the block; `row` counts the nodes of all requests.
__device__ bool has_children(const VerifyRejectionParams& p, int64_t row) {
  const int64_t first = row / p.num_nodes * p.num_nodes;
  int found = 0;
  for (int64_t node = threadIdx.x; node < p.num_nodes; node += kWalkThreads)
    found |= p.parent[first + node] == row - first;
  return block_reduce(found, 0, Max{}) != 0;
}

// grid: clusters for (batch * num_nodes, target and draft); before the walk, because all nodes' at once take no longer
// than one's.
__global__ void __launch_bounds__(kWalkThreads) sum_laws(const VerifyRejectionParams p, const Workspace w) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x / cluster_size();
  const LawView law = (blockIdx.y == 0 ? w.target : w.draft).at(p, row);
  if (!law.valid() || law.temperature <= 0 || !has_children(p, row)) return;
  const double total = law.log_total();
  if (cluster_rank() == 0 && threadIdx.x == 0) (blockIdx.y == 0 ? w.target : w.draft).of_row[row].log_total = total;
}

constexpr int kMapThreads = 256;

// grid: blocks of the vocabulary, then again of the draft's.
__global__ void clear_inverse(int32_t* inverse, int64_t vocabulary) {
  wait_for_earlier_kernels();
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kMapThreads + threadIdx.x;
  if (token < vocabulary) inverse[token] = -1;
}
__global__ void invert_map(const int32_t* d2t, int64_t draft_vocabulary, int32_t* inverse, int64_t vocabulary) {
  wait_for_earlier_kernels();
  const int64_t id = static_cast<int64_t>(blockIdx.x) * kMapThreads + threadIdx.x;
  if (id >= draft_vocabulary) return;
  const int64_t token = id + d2t[id];
  if (token >= 0 && token < vocabulary) inverse[token] = static_cast<int32_t>(id);
}

// One request, seen by all threads of its cluster: they compute the same decisions, and a few of each block write them
// down for their block.
struct Walk {
  const VerifyRejectionParams& p;
  const Workspace& w;
  const int64_t b;
  const SamplingParams params;
  const WalkedTree tree;
  Node* const nodes;
  Step* const steps;
  int32_t& num_steps;  // shared

  template <class Write>
  __device__ void write_by(int threads, const Write& change) const {
    __syncthreads();  // all have read what is about to change
    if (threadIdx.x < threads) change();
    __syncthreads();  // all will read what has changed
  }
  template <class Write>
  __device__ void write(const Write& change) const {
    write_by(1, change);
  }

  // Writes down what the children did so far; the fixed ones leave the proposal.
  __device__ void collect_steps(int32_t here) const {
    write_by(kWarp, [&] {
      int32_t count = 0;
      tree.for_children(here, [&](int32_t node, int32_t rank) {
        if (0 <= rank && rank < nodes[here].num_fixed) nodes[node].state = State::kExcluded;
        const bool has_step = rank >= 0 && nodes[node].state != State::kOpen;
        const unsigned with_step = __ballot_sync(kAllLanes, has_step);
        if (has_step) steps[count + __popc(with_step & lanes_before())] = step_of(nodes[node]);
        count += __popc(with_step);
        return true;
      });
      if (lane_id() == 0) num_steps = count;
    });
  }

  static __device__ Step step_of(const Node& child) {
    return {child.token, child.state == State::kSubtracted, child.owed, child.taken};
  }

  __device__ Residual residual(int32_t here) const {
    const int64_t row = b * p.num_nodes + here;
    return {w.target.at(p, row), w.draft.at(p, row), p.d2t, p.d2t ? w.inverse : nullptr, steps, num_steps};
  }

  __device__ bool coin(int32_t node, double probability) const {
    const uint32_t bits = philox_bits(philox_key(p.requests.seed[b]), static_cast<uint32_t>(node),
                                      static_cast<uint32_t>(p.context_len[b]), Stream::kAccept);
    return (bits + 0.5) * 0x1p-32 < probability;
  }

  // The token after an accepted node.
  __device__ int32_t bonus(const Residual& residual, int32_t here) const {
    if (!residual.target.valid()) return -1;
    if (params.temperature <= 0) return residual.target.law.top;
    const bool leaf = tree.next_child(here, here, [](int32_t, int32_t) { return true; }) == kNone;
    return residual.draw(
        NoiseKey(p.requests.seed[b], p.context_len[b], leaf ? Stream::kBonus : Stream::kResidual, here));
  }

  __device__ void store(int32_t last, int32_t bonus_token) const {
    int32_t* path = p.accept_index + b * (p.max_depth + 1);
    const int32_t length = nodes[last].depth;
    p.accept_length[b] = length;
    p.bonus_token[b] = bonus_token;
    for (int64_t i = length + 1; i <= p.max_depth; ++i) path[i] = -1;
    for (int32_t i = length; i >= 0; --i, last = nodes[last].parent) path[i] = last;
  }
};

// Logarithms of what a node's law and its next child's add up to.
struct Totals {
  double law, proposal;
};

// What the rejection of a child left; if nothing, the two laws agreed up to rounding. True: the child is accepted.
__device__ bool finish_rejection(const Walk& walk, int32_t here, int32_t rejected, bool traversal, Totals& totals) {
  const Node child = walk.nodes[rejected];
  const bool subtracted = child.state == State::kSubtracted;
  const double left = subtracted ? ::exp(totals.law) : 0.0;
  if (!traversal) return left <= 0;
  const double scale = walk.nodes[here].reach;
  walk.write([&] {
    walk.nodes[here].reach = scale >= 1 ? 1.0 : left / (left + 1 - scale);
    if (left <= 0) walk.nodes[rejected].state = State::kExcluded;
  });
  if (subtracted && left <= 0) {
    totals.law = ::log(scale) - child.owed;
    walk.collect_steps(here);
  }
  return false;
}

// law(x) / proposal(x) of a child, or -1 if the draft cannot have drawn it.
__device__ double acceptance_ratio(const Walk& walk, const Residual& residual, int32_t child, const Totals& totals) {
  const int32_t token = walk.nodes[child].token;
  if (token < 0 || token >= walk.p.vocabulary) return -1;
  const Residual::Weights weights = residual.at(token);
  if (weights.proposal <= kPossible) return -1;
  return ::exp((weights.law - totals.law) - (weights.proposal - totals.proposal));
}

// grid: a cluster for each request.
__global__ void __launch_bounds__(kWalkThreads, 1) verify_requests(const VerifyRejectionParams p, const Workspace w) {
  wait_for_earlier_kernels();
  __shared__ Node shared_nodes[kMaxNodes];
  __shared__ Step shared_steps[kMaxNodes];
  __shared__ int32_t num_steps;
  const bool fits = p.num_nodes <= kMaxNodes;
  const int64_t b = blockIdx.x / cluster_size(), first = b * p.num_nodes, mine = blockIdx.x * p.num_nodes;
  Node* const nodes = fits ? shared_nodes : w.nodes + mine;
  const SamplingParams params = p.requests.of(b);
  const WalkedTree tree{nodes, static_cast<int32_t>(p.num_nodes)};
  tree.link(p.parent + first, p.draft_tokens + first, params.temperature <= 0 ? nullptr : p.num_fixed + first,
            p.max_depth);
  const Walk walk{p, w, b, params, tree, nodes, fits ? shared_steps : w.steps + mine, num_steps};
  const bool traversal = p.traversal && walk.params.temperature > 0;
  int32_t here = 0, tested = 0, rejected = -1, bonus_token = -1;
  while (true) {
    walk.collect_steps(here);
    Residual residual = walk.residual(here);
    Totals totals{kNever, kNever};
    if (residual.target.valid() && walk.tree.next_sampled(here, here) != kNone && residual.draft.valid())
      totals = {residual.law_total(), residual.proposal_total()};

    int32_t following = kNone;
    if (rejected >= 0 && finish_rejection(walk, here, rejected, traversal, totals)) following = rejected;
    rejected = -1;
    residual.num_steps = num_steps;

    // The next child that the draft can have drawn: test it, or its subtree before it.
    int32_t child = kNone;
    double ratio = -1;
    if (following == kNone && totals.proposal > kPossible)
      for (child = walk.tree.next_sampled(here, tested); child != kNone; child = walk.tree.next_sampled(here, child)) {
        ratio = acceptance_ratio(walk, residual, child, totals);
        if (ratio >= 0) break;
      }
    if (child != kNone) {
      tested = child;
      const double scale = traversal ? nodes[here].reach : 1.0;
      const bool descends = traversal || walk.coin(child, ratio);
      walk.write([&] {
        nodes[child].owed = static_cast<float>((scale > 0 ? ::log(scale) : 0.0) - totals.law);
        nodes[child].taken = static_cast<float>(-totals.proposal);
        nodes[child].reach = scale * ratio < 1 ? scale * ratio : 1.0;
        if (!descends) nodes[child].state = State::kSubtracted;
      });
      if (descends)
        following = child;
      else
        rejected = child;
    } else if (following == kNone) {
      if (traversal && here != 0 && !walk.coin(here, nodes[here].reach)) {
        // Back to the parent.
        rejected = tested = here;
        here = nodes[here].parent;
        const State state = nodes[here].reach > 0 ? State::kSubtracted : State::kExcluded;
        walk.write([&] { nodes[rejected].state = state; });
        continue;
      }
      // The token after the accepted node; a fixed child that holds it goes on.
      bonus_token = walk.bonus(residual, here);
      if (residual.target.valid())
        following = walk.tree.next_child(here, here, [&](int32_t rank, int32_t node) {
          return rank < nodes[here].num_fixed && nodes[node].token == bonus_token;
        });
      if (following == kNone) break;
    }
    if (following != kNone) here = tested = following;
  }
  if (cluster_rank() == 0 && threadIdx.x == 0) walk.store(here, bonus_token);
}

}  // namespace

int64_t verify_rejection_workspace(const VerifyRejectionParams& p) { return Workspace(p, nullptr).bytes; }

void verify_rejection(const VerifyRejectionParams& p, void* workspace, void* stream) {
  if (p.batch == 0) return;
  const Workspace w(p, workspace);
  const dim3 rows(p.batch * p.num_nodes);
  for (const Laws& laws : {w.target, w.draft}) {
    const SummaryParams summary = summary_params(p, laws);
    summarize_rows(summary, stream);
    dispatch(summary.dtype, [&](auto element) {
      launch(&find_laws<decltype(element)>, rows, dim3(kSelectThreads), stream, p, summary, laws.of_row);
    });
  }
  const unsigned blocks = has_clusters(&verify_requests) ? kClusterBlocks : 1;
  launch_shaped(&sum_laws, {dim3(blocks * rows.x, 2), kWalkThreads, 0, blocks}, stream, p, w);
  if (p.d2t) {
    const dim3 tokens(ceil_div(p.vocabulary, kMapThreads)), ids(ceil_div(p.draft_vocabulary, kMapThreads));
    launch(&clear_inverse, tokens, dim3(kMapThreads), stream, w.inverse, p.vocabulary);
    launch(&invert_map, ids, dim3(kMapThreads), stream, p.d2t, p.draft_vocabulary, w.inverse, p.vocabulary);
  }
  launch_shaped(&verify_requests, {dim3(blocks * p.batch), kWalkThreads, 0, blocks}, stream, p, w);
  check_launch("verify_rejection");
}

}  // namespace eagle::cuda
