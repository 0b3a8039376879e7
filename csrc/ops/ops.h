// Declarations of the torch-facing ops, read by binding.cpp.
#pragma once
#include <optional>
#include <tuple>
#include <vector>

#include "ops/torch.h"

namespace eagle::ops {
void compact_kv(std::vector<Tensor> caches, const Tensor& accept_index, const Tensor& accept_length,
                const Tensor& context_len);
Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias);
Tensor gumbel_noise(const Tensor& seed, const Tensor& position_ids, int64_t num_tokens, int64_t stream);
Tensor sample_tokens(const Tensor& logits, const Tensor& position_ids, const Tensor& seed, const Tensor& temperature,
                     const Tensor& top_k, const Tensor& top_p, const Tensor& min_p);
std::tuple<Tensor, Tensor, Tensor> topk_logprobs(const Tensor& logits, int64_t k, const std::optional<Tensor>& d2t);
std::tuple<Tensor, Tensor, Tensor> verify_tree(const Tensor& draft_tokens, const Tensor& parent,
                                               const Tensor& target_tokens, int64_t max_depth);
}  // namespace eagle::ops
