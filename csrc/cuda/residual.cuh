// What a node's law still owes after its children were rejected, from the logits of any token: nothing is stored.
// A residual is the chain of the rejections of a node's children so far, two numbers each.
#pragma once
#include "cuda/cluster_reduce.cuh"
#include "cuda/keyed_noise.cuh"
#include "cuda/row_filter.cuh"

namespace eagle::cuda {

constexpr float kNever = -1e30f;  // the log of what has no probability; finite, so that differences are defined
constexpr float kPossible = kNever / 2;

// What the filters leave of a row of logits.
struct RowLaw {
  float max;  // not finite: the row is invalid
  Keep keep;
  int32_t top;       // of a greedy request: the lowest token with the maximum
  double log_total;  // of the weights of what is kept
};

// What a child did to its node's laws.
struct Step {
  int32_t token;
  bool subtracts;     // rejected: law = max(law - proposal, 0) after both were normalised by
  float owed, taken;  // these logarithms; in any case the token is proposed no more
};

// A sum of exponentials that goes on: of one thread, then of the cluster.
struct LogSum {
  float top = kNever;
  double sum = 0;

  __device__ void add(const float (&log_weights)[kOctet]) {
    float largest = kNever;
#pragma unroll
    for (const float weight : log_weights) largest = fmaxf(largest, weight);
    if (largest <= kPossible) return;
    if (largest > top) {
      sum *= ::exp(static_cast<double>(top) - largest);
      top = largest;
    }
#pragma unroll
    for (const float weight : log_weights)
      if (weight > kPossible) sum += exp<OneLane>(OneLane::add(weight, -top));
  }

  // The logarithm of all threads' sums; kNever if nothing has a weight.
  __device__ double of_cluster() const {
    const float largest = cluster_reduce(top, kNever, Max{});
    const double total = cluster_reduce(sum * ::exp(static_cast<double>(top) - largest), 0.0, Sum{});
    return largest > kPossible ? largest + ::log(total) : kNever;
  }
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
    return token >= 0 && token < vocabulary ? weigh(load(token), token) : kNever;
  }

  // The same of tokens first..first + 7.
  __device__ void log_weights(int64_t first, float (&weights)[kOctet]) const {
    load_octet(first, weights);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) weights[i] = first + i < vocabulary ? weigh(weights[i], first + i) : kNever;
  }

  // Calls visit(first) for runs of eight tokens that may have a weight, each in one thread of the cluster.
  template <class Visit>
  __device__ void for_each_octet(const Visit& visit) const {
    const auto wanted = [&](float maximum) { return maximum >= law.keep.threshold; };
    for_each_group(group_max, num_groups(vocabulary), cluster_warp_id(), num_cluster_warps(), wanted,
                   [&](int64_t group) { visit(group * kGroup + lane_id() * kOctet); });
  }

  // The logarithm of the sum of all weights, by all threads of the cluster.
  __device__ double log_total() const {
    LogSum sum;
    for_each_octet([&](int64_t first) {
      float weights[kOctet];
      log_weights(first, weights);
      sum.add(weights);
    });
    return sum.of_cluster();
  }

 private:
  __device__ float weigh(float logit, int64_t token) const {
    if (!(logit > law.keep.threshold || (logit == law.keep.threshold && token >= law.keep.first_token))) return kNever;
    return fmaxf(OneLane::div(OneLane::add(logit, -law.max), temperature), kNever);
  }

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

  __device__ void load_octet(int64_t first, float (&values)[kOctet]) const {
    switch (dtype) {
      case DType::kFloat32:
        return load_octet_of<float>(first, values);
      case DType::kFloat16:
        return load_octet_of<__half>(first, values);
      default:
        return load_octet_of<__nv_bfloat16>(first, values);
    }
  }
  template <class T>
  __device__ void load_octet_of(int64_t first, float (&values)[kOctet]) const {
    const Octet<T> octet = cuda::load_octet(row_at<T>(logits, 0, vocabulary), first);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[i] = to_float(octet.value[i]);
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
    Weights weights{target.log_weight(token), draft.log_weight(draft_token(token))};
    for (int32_t i = 0; i < num_steps; ++i) follow(steps[i], token, weights.law, weights.proposal);
    return weights;
  }

  // Logarithms of what the weights add up to, by all threads of the cluster.
  __device__ double law_total() const {
    if (num_steps == 0) return target.law.log_total;
    LogSum sum;
    target.for_each_octet([&](int64_t first) {
      float laws[kOctet];
      law_weights(first, laws);
      sum.add(laws);
    });
    return sum.of_cluster();
  }

  __device__ double proposal_total() const {
    if (num_steps == 0) return draft.law.log_total;
    LogSum sum;
    draft.for_each_octet([&](int64_t first) {
      float proposals[kOctet];
      draft.log_weights(first, proposals);
#pragma unroll
      for (int i = 0; i < kOctet; ++i)
        if (first + i < draft.vocabulary && was_tested(first + i + (d2t ? d2t[first + i] : 0))) proposals[i] = kNever;
      sum.add(proposals);
    });
    return sum.of_cluster();
  }

  // A token of the law: the largest log-weight plus noise, ties to the lowest; -1 if nothing has a weight.
  __device__ int32_t draw(const NoiseKey& noise) const {
    uint64_t best = 0;
    target.for_each_octet([&](int64_t first) {
      float laws[kOctet];
      law_weights(first, laws);
#pragma unroll
      for (int half = 0; half < kOctet; half += kNoiseTokens) {
        const PhiloxBlock<OneLane> bits = noise.bits(first + half);
#pragma unroll
        for (int i = 0; i < kNoiseTokens; ++i) {
          const float law = laws[half + i];
          if (law > kPossible)
            best = Max{}(best, pack(OneLane::add(law, gumbel<OneLane>(bits.word[i])), first + half + i));
        }
      }
    });
    best = cluster_reduce(best, uint64_t{0}, Max{});
    return best == 0 ? -1 : packed_token(best);
  }

 private:
  // The law's of tokens first..first + 7.
  __device__ void law_weights(int64_t first, float (&laws)[kOctet]) const {
    target.log_weights(first, laws);
    if (num_steps == 0) return;
    float proposals[kOctet];
    if (inverse == nullptr) {
      draft.log_weights(first, proposals);
    } else {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) proposals[i] = draft.log_weight(draft_token(first + i));
    }
    for (int32_t step = 0; step < num_steps; ++step)
#pragma unroll
      for (int i = 0; i < kOctet; ++i) follow(steps[step], first + i, laws[i], proposals[i]);
  }

  // Whether a token was that of a child with a step, after which the draft proposes it no more.
  __device__ bool was_tested(int64_t token) const {
    bool found = false;
    for (int32_t i = 0; i < num_steps; ++i) found |= steps[i].token == token;
    return found;
  }

  __device__ int64_t draft_token(int64_t token) const {
    if (inverse == nullptr) return token;
    return token >= 0 && token < target.vocabulary ? inverse[token] : -1;
  }

  // What a step leaves of a token's weights: log(p - q) = log p + log(1 - exp(log q - log p)).
  static __device__ void follow(const Step& step, int64_t token, float& law, float& proposal) {
    if (step.subtracts) {
      const float log_p = OneLane::add(law, step.owed), log_q = OneLane::add(proposal, step.taken);
      const float ratio = exp<OneLane>(fminf(OneLane::add(log_q, -log_p), 0.0f));
      const float share = OneLane::add(1.0f, -ratio);  // of p that is left
      law = share > 0 && log_p > kPossible ? OneLane::add(log_p, log<OneLane>(share)) : kNever;
    }
    if (token == step.token) proposal = kNever;
  }
};

}  // namespace eagle::cuda
