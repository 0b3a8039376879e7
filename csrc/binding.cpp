// Every op of the package, its schema on one line. Python sees torch.ops.eagle_kernels.*
#include <pybind11/pybind11.h>

#include "cpu/level.h"
#include "ops/ops.h"

// clang-format off: one op a line

STABLE_TORCH_LIBRARY(eagle_kernels, m) {
  m.def("build_tree(Tensor node_scores, Tensor node_tokens, Tensor node_parents, Tensor context_len, int num_nodes) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("commit_step(Tensor draft_tokens, Tensor accept_index, Tensor accept_length, Tensor bonus_token, Tensor hidden_states, Tensor context_len) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("compact_kv(Tensor(a!)[] caches, Tensor accept_index, Tensor accept_length, Tensor context_len, Tensor? page_table=None) -> ()");
  m.def("write_kv(Tensor key_states, Tensor value_states, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor cache_rows, Tensor? page_table=None) -> ()");
  m.def("linear(Tensor input, Tensor weight, Tensor? bias=None, Tensor? weight_scale=None) -> Tensor");
  m.def("rms_norm(Tensor input, Tensor weight, float eps) -> Tensor");
  m.def("silu_mul(Tensor gate, Tensor up) -> Tensor");
  m.def("rope(Tensor query, Tensor key, Tensor cos, Tensor sin) -> (Tensor, Tensor)");
  m.def("draft_input(Tensor token_ids, Tensor hidden_states, Tensor embed_weight, Tensor embed_norm_weight, Tensor hidden_norm_weight, float eps) -> Tensor");
  m.def("draft_qkv_rope(Tensor x, Tensor qkv_weight, Tensor? qkv_bias, Tensor rope_cos, Tensor rope_sin, Tensor position_ids, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor cache_rows, int num_heads, Tensor? qkv_scale=None, Tensor? page_table=None, Tensor? q_norm_weight=None, Tensor? k_norm_weight=None, float norm_eps=0.0) -> Tensor");
  m.def("draft_output(Tensor attention, Tensor o_weight, Tensor residual, Tensor norm_weight, float eps, Tensor? o_scale=None) -> (Tensor, Tensor)");
  m.def("draft_mlp(Tensor normed, Tensor gate_up_weight, Tensor down_weight, Tensor residual, Tensor? gate_up_scale=None, Tensor? down_scale=None) -> Tensor");
  m.def("decoder_layers(Tensor hidden_states, Tensor[] norm_weight, Tensor[] qkv_weight, Tensor[] o_weight, Tensor[] mlp_norm_weight, Tensor[] gate_up_weight, Tensor[] down_weight, Tensor(a!) caches, Tensor cache_rows, Tensor rope_cos, Tensor rope_sin, Tensor position_ids, Tensor context_len, Tensor ancestor_mask, int num_heads, float scale, float eps, Tensor[] qkv_bias, Tensor[] q_norm_weight, Tensor[] k_norm_weight, int[] windows, int[] boundaries, Tensor? page_table=None) -> (Tensor, Tensor)");
  m.def("lm_head_topk(Tensor hidden_states, Tensor norm_weight, float eps, Tensor lm_head_weight, int k, Tensor? d2t=None, Tensor? lm_head_scale=None) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("expand_tree(Tensor frontier_scores, Tensor frontier_slots, Tensor frontier_mask, Tensor logprobs, Tensor token_ids, Tensor(a!) node_scores, Tensor(b!) node_tokens, Tensor(c!) node_parents, int slot_offset, int row_offset) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("tree_attention(Tensor query, Tensor key_cache, Tensor value_cache, Tensor context_len, Tensor ancestor_mask, float scale, Tensor? page_table=None, int? window=None, Tensor? sinks=None) -> Tensor");
  m.def("gumbel_noise(Tensor seed, Tensor position_ids, int num_tokens, int stream) -> Tensor");
  m.def("sample_children(Tensor draft_logits, Tensor node_ids, Tensor num_children, Tensor num_fixed, Tensor context_len, Tensor seed, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p, int max_children, Tensor? d2t) -> (Tensor, Tensor)");
  m.def("verify_rejection(Tensor target_logits, Tensor draft_logits, Tensor draft_tokens, Tensor parent, Tensor num_fixed, Tensor context_len, Tensor seed, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p, Tensor? d2t, int max_depth, bool traversal) -> (Tensor, Tensor, Tensor)");
  m.def("sample_tokens(Tensor logits, Tensor position_ids, Tensor seed, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p) -> Tensor");
  m.def("topk_logprobs(Tensor logits, int k, Tensor? d2t) -> (Tensor, Tensor, Tensor)");
  m.def("verify_tree(Tensor draft_tokens, Tensor parent, Tensor target_tokens, int max_depth) -> (Tensor, Tensor, Tensor)");
}

// The same host function serves both devices and branches on the tensor's.
STABLE_TORCH_LIBRARY_IMPL(eagle_kernels, CPU, m) {
  m.impl("build_tree", TORCH_BOX(&eagle::ops::build_tree));
  m.impl("commit_step", TORCH_BOX(&eagle::ops::commit_step));
  m.impl("compact_kv", TORCH_BOX(&eagle::ops::compact_kv));
  m.impl("write_kv", TORCH_BOX(&eagle::ops::write_kv));
  m.impl("linear", TORCH_BOX(&eagle::ops::linear));
  m.impl("rms_norm", TORCH_BOX(&eagle::ops::rms_norm));
  m.impl("silu_mul", TORCH_BOX(&eagle::ops::silu_mul));
  m.impl("rope", TORCH_BOX(&eagle::ops::rope));
  m.impl("draft_input", TORCH_BOX(&eagle::ops::draft_input));
  m.impl("draft_qkv_rope", TORCH_BOX(&eagle::ops::draft_qkv_rope));
  m.impl("draft_output", TORCH_BOX(&eagle::ops::draft_output));
  m.impl("draft_mlp", TORCH_BOX(&eagle::ops::draft_mlp));
  m.impl("decoder_layers", TORCH_BOX(&eagle::ops::decoder_layers));
  m.impl("lm_head_topk", TORCH_BOX(&eagle::ops::lm_head_topk));
  m.impl("gumbel_noise", TORCH_BOX(&eagle::ops::gumbel_noise));
  m.impl("sample_children", TORCH_BOX(&eagle::ops::sample_children));
  m.impl("verify_rejection", TORCH_BOX(&eagle::ops::verify_rejection));
  m.impl("sample_tokens", TORCH_BOX(&eagle::ops::sample_tokens));
  m.impl("topk_logprobs", TORCH_BOX(&eagle::ops::topk_logprobs));
  m.impl("verify_tree", TORCH_BOX(&eagle::ops::verify_tree));
  m.impl("expand_tree", TORCH_BOX(&eagle::ops::expand_tree));
  m.impl("tree_attention", TORCH_BOX(&eagle::ops::tree_attention));
}

#ifdef EAGLE_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(eagle_kernels, CUDA, m) {
  m.impl("write_kv", TORCH_BOX(&eagle::ops::write_kv));
  m.impl("compact_kv", TORCH_BOX(&eagle::ops::compact_kv));
  m.impl("build_tree", TORCH_BOX(&eagle::ops::build_tree));
  m.impl("commit_step", TORCH_BOX(&eagle::ops::commit_step));
  m.impl("expand_tree", TORCH_BOX(&eagle::ops::expand_tree));
  m.impl("gumbel_noise", TORCH_BOX(&eagle::ops::gumbel_noise));
  m.impl("sample_children", TORCH_BOX(&eagle::ops::sample_children));
  m.impl("verify_rejection", TORCH_BOX(&eagle::ops::verify_rejection));
  m.impl("sample_tokens", TORCH_BOX(&eagle::ops::sample_tokens));
  m.impl("topk_logprobs", TORCH_BOX(&eagle::ops::topk_logprobs));
  m.impl("verify_tree", TORCH_BOX(&eagle::ops::verify_tree));
  m.impl("linear", TORCH_BOX(&eagle::ops::linear));
  m.impl("rms_norm", TORCH_BOX(&eagle::ops::rms_norm));
  m.impl("silu_mul", TORCH_BOX(&eagle::ops::silu_mul));
  m.impl("rope", TORCH_BOX(&eagle::ops::rope));
  m.impl("draft_input", TORCH_BOX(&eagle::ops::draft_input));
  m.impl("draft_qkv_rope", TORCH_BOX(&eagle::ops::draft_qkv_rope));
  m.impl("draft_output", TORCH_BOX(&eagle::ops::draft_output));
  m.impl("draft_mlp", TORCH_BOX(&eagle::ops::draft_mlp));
  m.impl("decoder_layers", TORCH_BOX(&eagle::ops::decoder_layers));
  m.impl("lm_head_topk", TORCH_BOX(&eagle::ops::lm_head_topk));
  m.impl("tree_attention", TORCH_BOX(&eagle::ops::tree_attention));
}
#endif

PYBIND11_MODULE(_C, m) {
  m.attr("cpu_level") = eagle::cpu::level_name();
#ifdef EAGLE_WITH_CUDA
  m.attr("with_cuda") = true;
#else
  m.attr("with_cuda") = false;
#endif
}
