// Declarations of the torch-facing ops, read by binding.cpp.
#pragma once
#include <optional>
#include <tuple>
#include <vector>

#include "ops/torch.h"

namespace eagle::ops {
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> build_tree(const Tensor& node_scores,
                                                                      const Tensor& node_tokens,
                                                                      const Tensor& node_parents,
                                                                      const Tensor& context_len, int64_t num_nodes);
std::tuple<Tensor, Tensor, Tensor, Tensor> commit_step(const Tensor& draft_tokens, const Tensor& accept_index,
                                                       const Tensor& accept_length, const Tensor& bonus_token,
                                                       const Tensor& hidden_states, const Tensor& context_len);
void compact_kv(std::vector<Tensor> caches, const Tensor& accept_index, const Tensor& accept_length,
                const Tensor& context_len);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> expand_tree(const Tensor& frontier_scores,
                                                               const Tensor& frontier_slots,
                                                               const Tensor& frontier_mask, const Tensor& logprobs,
                                                               const Tensor& token_ids, Tensor node_scores,
                                                               Tensor node_tokens, Tensor node_parents,
                                                               int64_t slot_offset, int64_t row_offset);
Tensor tree_attention(const Tensor& query, const Tensor& key_cache, const Tensor& value_cache,
                      const Tensor& context_len, const Tensor& ancestor_mask, double scale);
}  // namespace eagle::ops
