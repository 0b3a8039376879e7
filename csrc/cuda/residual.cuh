// What a node's law still owes after its children were rejected, from the logits of any token: nothing is stored.
// A residual is the chain of the rejections of a node's children so far, two numbers each.
#pragma once
#include "cuda/keyed_noise.cuh"
#include "cuda/row_filter.cuh"

namespace eagle::cuda {

constexpr float kNever = -1e30f;  // the log of what has no probability; finite, so that differences are defined
constexpr float kPossible = kNever / 2;

// What the filters leave of a row of logits.
struct RowLaw {
  float max;  // not finite: the row is invalid
  Keep keep;
  int32_t top;  // lowest token with the maximum
};

// What a child did to its node's laws.
struct Step {
  int32_t token;
  bool subtracts;     // rejected: law = max(law - proposal, 0) after both were normalised by
  float owed, taken;  // these logarithms; in any case the token is proposed no more
};

// The law of one row, with the groups of 256 tokens that it can be zero in.
struct LawView {
  const void* logits;
  DType dtype;
  int64_t vocabulary;
  const float* group_max;
  RowLaw law;
  float temperature;

  __device__ bool valid() const { return fabsf(law.max) < INFINITY; }

  // (logit - max) / temperature of what the filters keep.
  __device__ float log_weight(int64_t token) const {
    if (token < 0 || token >= vocabulary) return kNever;
    const float logit = load(token);
    if (!(logit > law.keep.threshold || (logit == law.keep.threshold && token >= law.keep.first_token))) return kNever;
    return fmaxf(OneLane::div(OneLane::add(logit, -law.max), temperature), kNever);
  }

  // Calls visit(first) for runs of eight tokens that may have a weight.
  template <class Visit>
  __device__ void for_each_octet(const Visit& visit) const {
    const auto wanted = [&](float maximum) { return maximum >= law.keep.threshold; };
    for_each_group(group_max, num_groups(vocabulary), wanted,
                   [&](int64_t group) { visit(group * kGroup + lane_id() * kOctet); });
  }

 private:
  __device__ float load(int64_t token) const {
    switch (dtype) {
      case DType::kFloat32:
        return static_cast<const float*>(logits)[token];
      case DType::kFloat16:
        return to_float(static_cast<const __half*>(logits)[token]);
      default:
        return to_float(static_cast<const __nv_bfloat16*>(logits)[token]);
    }
  }
};

// A sum of exponentials that goes on: of one thread, then of the block.
struct LogSum {
  float top = kNever;
  double sum = 0;

  __device__ void add(float log_weight) {
    if (log_weight <= kPossible) return;
    if (log_weight > top) {
      sum *= ::exp(static_cast<double>(top) - log_weight);
      top = log_weight;
    }
    sum += exp<OneLane>(OneLane::add(log_weight, -top));
  }

  // The logarithm of all threads' sums; kNever if nothing has a weight.
  __device__ double of_block() const {
    const float largest = block_reduce(top, kNever, Max{});
    const double total = block_reduce(sum * ::exp(static_cast<double>(top) - largest), 0.0, Sum{});
    return largest > kPossible ? largest + ::log(total) : kNever;
  }
};

// A node's two laws and what its children did to them.
struct Residual {
  LawView target, draft;
  const int32_t* d2t;      // or null
  const int32_t* inverse;  // from a target token to the draft's id, or null
  const Step* steps;
  int32_t num_steps;

  struct Weights {
    float law, proposal;  // logarithms
  };

  __device__ Weights at(int64_t token) const {
    return after_steps({target.log_weight(token), draft.log_weight(draft_token(token))}, token);
  }

  __device__ double law_total() const {
    LogSum sum;
    target.for_each_octet([&](int64_t first) {
      for (int i = 0; i < kOctet; ++i) sum.add(at(first + i).law);
    });
    return sum.of_block();
  }

  __device__ double proposal_total() const {
    LogSum sum;
    draft.for_each_octet([&](int64_t first) {
      for (int i = 0; i < kOctet; ++i) {
        const int64_t id = first + i;
        if (id >= draft.vocabulary) break;
        sum.add(after_steps({kNever, draft.log_weight(id)}, id + (d2t ? d2t[id] : 0)).proposal);
      }
    });
    return sum.of_block();
  }

  // A token of the law: the largest log-weight plus noise, ties to the lowest; -1 if nothing has a weight.
  __device__ int32_t draw(const NoiseKey& noise) const {
    uint64_t best = 0;
    target.for_each_octet([&](int64_t first) {
      for (int half = 0; half < kOctet; half += kNoiseTokens) {
        const PhiloxBlock<OneLane> bits = noise.bits(first + half);
#pragma unroll
        for (int i = 0; i < kNoiseTokens; ++i) {
          const int64_t token = first + half + i;
          const float law = num_steps > 0 ? at(token).law : target.log_weight(token);
          if (law > kPossible) best = Max{}(best, pack(OneLane::add(law, gumbel<OneLane>(bits.word[i])), token));
        }
      }
    });
    best = block_reduce(best, uint64_t{0}, Max{});
    return best == 0 ? -1 : packed_token(best);
  }

 private:
  __device__ int64_t draft_token(int64_t token) const {
    if (inverse == nullptr) return token;
    return token >= 0 && token < target.vocabulary ? inverse[token] : -1;
  }

  // log(p - q) = log p + log(1 - exp(log q - log p)).
  __device__ Weights after_steps(Weights w, int64_t token) const {
    for (int32_t i = 0; i < num_steps; ++i) {
      const Step step = steps[i];
      if (step.subtracts) {
        const float log_p = OneLane::add(w.law, step.owed), log_q = OneLane::add(w.proposal, step.taken);
        const float ratio = exp<OneLane>(fminf(OneLane::add(log_q, -log_p), 0.0f));
        const float share = OneLane::add(1.0f, -ratio);  // of p that is left
        w.law = share > 0 && log_p > kPossible ? OneLane::add(log_p, log<OneLane>(share)) : kNever;
      }
      if (token == step.token) w.proposal = kNever;
    }
    return w;
  }
};

}  // namespace eagle::cuda
