// verify_rejection on the CPU: laws are computed for visited nodes only, one at a time.
#include "cpu/no_contraction.h"

// The pragma above must precede all code.
#include "common/verify_rejection.h"
#include "cpu/law.h"

namespace eagle::cpu {
namespace {

// One request: its tree, its noise and how to read the laws at its nodes.
struct Request {
  const VerifyRejectionParams& p;
  int64_t b;
  SamplingParams params;
  PhiloxKey key;
  uint32_t context_len;
  std::vector<std::vector<int32_t>> children;
  RowScratch scratch;
  std::vector<float> difference;

  Request(const VerifyRejectionParams& p, int64_t b)
      : p(p),
        b(b),
        params(p.requests.of(b)),
        key(philox_key(p.requests.seed[b])),
        context_len(static_cast<uint32_t>(p.context_len[b])),
        children(p.num_nodes) {
    std::vector<int64_t> depth(p.num_nodes, 0);
    for (int32_t node = 1; node < p.num_nodes; ++node) {
      const int32_t above = p.parent[b * p.num_nodes + node];
      if (above < 0 || above >= node || depth[above] >= p.max_depth || (above > 0 && depth[above] == 0)) continue;
      depth[node] = depth[above] + 1;
      children[above].push_back(node);
    }
  }

  int32_t token(int32_t node) const { return p.draft_tokens[b * p.num_nodes + node]; }

  size_t num_fixed(int32_t node) const {
    const size_t count = children[node].size();
    if (params.temperature <= 0) return count;
    return std::clamp<int64_t>(p.num_fixed[b * p.num_nodes + node], 0, static_cast<int64_t>(count));
  }

  bool coin(int32_t node, double probability) const {
    const uint32_t bits = philox_bits(key, static_cast<uint32_t>(node), context_len, Stream::kAccept);
    return (bits + 0.5) * 0x1p-32 < probability;
  }

  NoiseKey draw_noise(int32_t node) const {
    const Stream stream = children[node].empty() ? Stream::kBonus : Stream::kResidual;
    return {key, context_len, stream, static_cast<uint32_t>(node)};
  }

  // The draft's id of a target token, or -1 if the draft does not have it.
  int64_t draft_token(int32_t token) const {
    if (!p.d2t) return token < p.draft_vocabulary ? token : -1;
    for (int64_t i = 0; i < p.draft_vocabulary; ++i)
      if (i + p.d2t[i] == token) return i;
    return -1;
  }
};

EAGLE_INLINE bool fill_law(const LogitsView& logits, int64_t vocabulary, Request& request, int32_t node, LogLaw& law) {
  const int64_t offset = request.b * logits.batch_stride + node * logits.row_stride;
  switch (logits.dtype) {
    case DType::kFloat32:
      return fill_law(Row<float>{static_cast<const float*>(logits.data) + offset, vocabulary}, request.params,
                      request.scratch, law);
    case DType::kFloat16:
      return fill_law(Row<float16>{static_cast<const float16*>(logits.data) + offset, vocabulary}, request.params,
                      request.scratch, law);
    default:
      return fill_law(Row<bfloat16>{static_cast<const bfloat16*>(logits.data) + offset, vocabulary}, request.params,
                      request.scratch, law);
  }
}

// What a node's target law still owes, and the law of its next child.
struct Residual {
  LogLaw law, proposal;
  bool valid;
};

EAGLE_MULTIVERSION void begin(Request& request, int32_t node, Residual& residual) {
  const VerifyRejectionParams& p = request.p;
  residual.valid = fill_law(p.target_logits, p.vocabulary, request, node, residual.law);
  const std::vector<int32_t>& children = request.children[node];
  const size_t fixed = request.num_fixed(node);
  residual.proposal.log_total = kNever;
  if (!residual.valid || fixed == children.size()) return;
  if (!fill_law(p.draft_logits, p.draft_vocabulary, request, node, residual.proposal)) return;
  for (size_t i = 0; i < fixed; ++i) {
    const int64_t draft_token = request.draft_token(request.token(children[i]));
    if (draft_token >= 0) residual.proposal.exclude(draft_token);
  }
  if (fixed > 0) normalise(residual.proposal);
}

// law = max(scale * law - proposal, 0), and `draft_token` leaves the proposal; returns the mass that is left.
EAGLE_MULTIVERSION double reject(Request& request, Residual& residual, int64_t draft_token, double scale) {
  const double left =
      subtract(residual.law, scale, residual.proposal, request.p.d2t, request.p.draft_vocabulary, request.difference);
  residual.proposal.exclude(draft_token);
  normalise(residual.proposal);
  return left;
}

EAGLE_MULTIVERSION int32_t draw_token(const Request& request, const Residual& residual, int32_t node) {
  return draw(residual.law, request.draw_noise(node));
}

// A sampled child against the residual: law(x) / proposal(x), or a negative number if the draft cannot have drawn it.
struct Test {
  int64_t draft_token;
  double ratio;
};

Test test(const Request& request, const Residual& residual, int32_t child) {
  const int32_t token = request.token(child);
  if (residual.proposal.empty() || token < 0 || token >= request.p.vocabulary) return {-1, -1};
  const int64_t draft_token = request.draft_token(token);
  if (draft_token < 0 || residual.proposal.log_weight[draft_token] <= kNever) return {-1, -1};
  return {draft_token, std::exp(residual.law.log_probability(token) - residual.proposal.log_probability(draft_token))};
}

// The accepted sampled child of a node, or -1 with the residual that all of them left.
int32_t first_accepted(Request& request, int32_t node, Residual& residual) {
  const std::vector<int32_t>& children = request.children[node];
  for (size_t i = request.num_fixed(node); i < children.size(); ++i) {
    const Test tested = test(request, residual, children[i]);
    if (tested.ratio < 0) continue;
    if (request.coin(children[i], tested.ratio)) return children[i];
    if (reject(request, residual, tested.draft_token, 1.0) <= 0) return children[i];
  }
  return -1;
}

// Appends the accepted nodes below the root to `path`; returns the token after them.
int32_t verify_recursively(Request& request, std::vector<int32_t>& path) {
  Residual residual;
  int32_t here = 0;
  while (true) {
    begin(request, here, residual);
    if (!residual.valid) return -1;
    int32_t accepted = first_accepted(request, here, residual);
    if (accepted < 0) {
      const int32_t token = draw_token(request, residual, here);
      const std::vector<int32_t>& children = request.children[here];
      for (size_t i = request.num_fixed(here); i-- > 0;)
        if (request.token(children[i]) == token) accepted = children[i];
      if (accepted < 0) return token;
    }
    path.push_back(accepted);
    here = accepted;
  }
}

// Whether a node of this subtree was accepted; then `path` holds it and its ancestors up to `node`, from below, and
// `bonus_token` the token after it. `reach`: probability that the node is accepted, given how its path fared.
bool traverse(Request& request, int32_t node, double reach, std::vector<int32_t>& path, int32_t& bonus_token) {
  Residual residual;
  begin(request, node, residual);
  if (residual.valid) {
    for (const int32_t child : request.children[node]) {
      const Test tested = test(request, residual, child);
      if (tested.ratio < 0) continue;
      if (traverse(request, child, std::min(reach * tested.ratio, 1.0), path, bonus_token)) {
        path.push_back(node);
        return true;
      }
      const double left = reject(request, residual, tested.draft_token, reach);
      reach = reach >= 1 ? 1 : left / (left + 1 - reach);
    }
  }
  if (node != 0 && !request.coin(node, reach)) return false;
  path.push_back(node);
  bonus_token = residual.valid ? draw_token(request, residual, node) : -1;
  return true;
}

void verify_request(const VerifyRejectionParams& p, int64_t b) {
  Request request(p, b);
  std::vector<int32_t> path;
  if (p.traversal && request.params.temperature > 0) {
    traverse(request, 0, 1.0, path, p.bonus_token[b]);
    std::reverse(path.begin(), path.end());
  } else {
    path.push_back(0);
    p.bonus_token[b] = verify_recursively(request, path);
  }
  int32_t* accept_index = p.accept_index + b * (p.max_depth + 1);
  std::fill_n(accept_index, p.max_depth + 1, -1);
  std::copy(path.begin(), path.end(), accept_index);
  p.accept_length[b] = static_cast<int32_t>(path.size()) - 1;
}

}  // namespace

void verify_rejection(const VerifyRejectionParams& p, ParallelFor parallel_for) {
  parallel_for(p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) verify_request(p, b);
  });
}

}  // namespace eagle::cpu
