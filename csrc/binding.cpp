// Every op of the package, its schema on one line. Python sees torch.ops.eagle_kernels.*
#include <pybind11/pybind11.h>

#include "ops/ops.h"

// clang-format off: one op a line

STABLE_TORCH_LIBRARY(eagle_kernels, m) {
  m.def("build_tree(Tensor node_scores, Tensor node_tokens, Tensor node_parents, Tensor context_len, int num_nodes) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("commit_step(Tensor draft_tokens, Tensor accept_index, Tensor accept_length, Tensor bonus_token, Tensor hidden_states, Tensor context_len) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("compact_kv(Tensor(a!)[] caches, Tensor accept_index, Tensor accept_length, Tensor context_len) -> ()");
  m.def("expand_tree(Tensor frontier_scores, Tensor frontier_slots, Tensor frontier_mask, Tensor logprobs, Tensor token_ids, Tensor(a!) node_scores, Tensor(b!) node_tokens, Tensor(c!) node_parents, int slot_offset, int row_offset) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("tree_attention(Tensor query, Tensor key_cache, Tensor value_cache, Tensor context_len, Tensor ancestor_mask, float scale) -> Tensor");
}

// The same host function serves both devices and branches on the tensor's.
STABLE_TORCH_LIBRARY_IMPL(eagle_kernels, CPU, m) {
  m.impl("build_tree", TORCH_BOX(&eagle::ops::build_tree));
  m.impl("commit_step", TORCH_BOX(&eagle::ops::commit_step));
  m.impl("compact_kv", TORCH_BOX(&eagle::ops::compact_kv));
  m.impl("expand_tree", TORCH_BOX(&eagle::ops::expand_tree));
  m.impl("tree_attention", TORCH_BOX(&eagle::ops::tree_attention));
}

#ifdef EAGLE_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(eagle_kernels, CUDA, m) {
  m.impl("compact_kv", TORCH_BOX(&eagle::ops::compact_kv));
}
#endif

PYBIND11_MODULE(_C, m) {
#ifdef EAGLE_WITH_CUDA
  m.attr("with_cuda") = true;
#else
  m.attr("with_cuda") = false;
#endif
}
