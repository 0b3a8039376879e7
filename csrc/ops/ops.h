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
void write_kv(const Tensor& key_states, const Tensor& value_states, const Tensor& key_cache, const Tensor& value_cache,
              const Tensor& cache_rows, const std::optional<Tensor>& page_table);
void compact_kv(std::vector<Tensor> caches, const Tensor& accept_index, const Tensor& accept_length,
                const Tensor& context_len, const std::optional<Tensor>& page_table);
Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const std::optional<Tensor>& weight_scale);
Tensor gumbel_noise(const Tensor& seed, const Tensor& position_ids, int64_t num_tokens, int64_t stream);
std::tuple<Tensor, Tensor> sample_children(const Tensor& draft_logits, const Tensor& node_ids,
                                           const Tensor& num_children, const Tensor& num_fixed,
                                           const Tensor& context_len, const Tensor& seed, const Tensor& temperature,
                                           const Tensor& top_k, const Tensor& top_p, const Tensor& min_p,
                                           int64_t max_children, const std::optional<Tensor>& d2t);
std::tuple<Tensor, Tensor, Tensor> verify_rejection(const Tensor& target_logits, const Tensor& draft_logits,
                                                    const Tensor& draft_tokens, const Tensor& parent,
                                                    const Tensor& num_fixed, const Tensor& context_len,
                                                    const Tensor& seed, const Tensor& temperature, const Tensor& top_k,
                                                    const Tensor& top_p, const Tensor& min_p,
                                                    const std::optional<Tensor>& d2t, int64_t max_depth,
                                                    bool traversal);
Tensor sample_tokens(const Tensor& logits, const Tensor& position_ids, const Tensor& seed, const Tensor& temperature,
                     const Tensor& top_k, const Tensor& top_p, const Tensor& min_p);
std::tuple<Tensor, Tensor, Tensor> topk_logprobs(const Tensor& logits, int64_t k, const std::optional<Tensor>& d2t);
std::tuple<Tensor, Tensor, Tensor> verify_tree(const Tensor& draft_tokens, const Tensor& parent,
                                               const Tensor& target_tokens, int64_t max_depth);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> expand_tree(const Tensor& frontier_scores,
                                                               const Tensor& frontier_slots,
                                                               const Tensor& frontier_mask, const Tensor& logprobs,
                                                               const Tensor& token_ids, Tensor node_scores,
                                                               Tensor node_tokens, Tensor node_parents,
                                                               int64_t slot_offset, int64_t row_offset);
Tensor tree_attention(const Tensor& query, const Tensor& key_cache, const Tensor& value_cache,
                      const Tensor& context_len, const Tensor& ancestor_mask, double scale,
                      const std::optional<Tensor>& page_table, std::optional<int64_t> window,
                      const std::optional<Tensor>& sinks);
Tensor rms_norm(const Tensor& input, const Tensor& weight, double eps);
Tensor silu_mul(const Tensor& gate, const Tensor& up);
std::tuple<Tensor, Tensor> rope(const Tensor& query, const Tensor& key, const Tensor& cos, const Tensor& sin);
Tensor draft_input(const Tensor& token_ids, const Tensor& hidden_states, const Tensor& embed_weight,
                   const Tensor& embed_norm_weight, const Tensor& hidden_norm_weight, double eps);
Tensor draft_qkv_rope(const Tensor& x, const Tensor& qkv_weight, const std::optional<Tensor>& qkv_bias,
                      const Tensor& rope_cos, const Tensor& rope_sin, const Tensor& position_ids,
                      const Tensor& key_cache, const Tensor& value_cache, const Tensor& cache_rows, int64_t num_heads,
                      const std::optional<Tensor>& qkv_scale, const std::optional<Tensor>& page_table,
                      const std::optional<Tensor>& q_norm_weight, const std::optional<Tensor>& k_norm_weight,
                      double norm_eps);
std::tuple<Tensor, Tensor> draft_output(const Tensor& attention, const Tensor& o_weight, const Tensor& residual,
                                        const Tensor& norm_weight, double eps, const std::optional<Tensor>& o_scale);
Tensor draft_mlp(const Tensor& normed, const Tensor& gate_up_weight, const Tensor& down_weight, const Tensor& residual,
                 const std::optional<Tensor>& gate_up_scale, const std::optional<Tensor>& down_scale);
std::tuple<Tensor, Tensor> decoder_layers(const Tensor& hidden_states, std::vector<Tensor> norm_weight,
                                          std::vector<Tensor> qkv_weight, std::vector<Tensor> o_weight,
                                          std::vector<Tensor> mlp_norm_weight, std::vector<Tensor> gate_up_weight,
                                          std::vector<Tensor> down_weight, const Tensor& caches,
                                          const Tensor& cache_rows, const Tensor& rope_cos, const Tensor& rope_sin,
                                          const Tensor& position_ids, const Tensor& context_len,
                                          const Tensor& ancestor_mask, int64_t num_heads, double scale, double eps,
                                          std::vector<Tensor> qkv_bias, std::vector<Tensor> q_norm_weight,
                                          std::vector<Tensor> k_norm_weight, std::vector<int64_t> windows,
                                          std::vector<int64_t> boundaries, const std::optional<Tensor>& page_table);
std::tuple<Tensor, Tensor, Tensor, Tensor> lm_head_topk(const Tensor& hidden_states, const Tensor& norm_weight,
                                                        double eps, const Tensor& lm_head_weight, int64_t k,
                                                        const std::optional<Tensor>& d2t,
                                                        const std::optional<Tensor>& lm_head_scale);
}  // namespace eagle::ops
