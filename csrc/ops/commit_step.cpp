// commit_step for torch tensors: checks and allocation.
#include "common/commit_step.h"

#include "ops/match.h"
#include "ops/ops.h"
#include "ops/range.h"

namespace eagle::ops {
namespace {

// Raises unless every path lies inside its tree, where looking costs no synchronisation.
void check_paths(const Tensor& accept_index, const Tensor& accept_length, int64_t num_nodes) {
  if (accept_index.is_cuda()) return;
  const int64_t path_length = accept_index.size(1);
  check_range("commit_step", "accept_length", accept_length, 0, path_length);
  const int32_t* path = accept_index.const_data_ptr<int32_t>();
  const int32_t* length = accept_length.const_data_ptr<int32_t>();
  for (int64_t b = 0; b < accept_index.size(0); ++b, path += path_length)
    for (int64_t i = 0; i <= length[b]; ++i)
      EAGLE_CHECK(path[i] >= 0 && path[i] < num_nodes, "commit_step: accept_index holds ", path[i],
                  " on an accepted path, expected 0 <= index < ", num_nodes);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> commit_step(const Tensor& draft_tokens, const Tensor& accept_index,
                                                       const Tensor& accept_length, const Tensor& bonus_token,
                                                       const Tensor& hidden_states, const Tensor& context_len) {
  Match m("commit_step");
  m.tensor("draft_tokens", draft_tokens, "B N", Kind::kInt32);
  m.tensor("accept_index", accept_index, "B P", Kind::kInt32);
  m.tensor("accept_length", accept_length, "B", Kind::kInt32);
  m.tensor("bonus_token", bonus_token, "B", Kind::kInt32);
  m.tensor("hidden_states", hidden_states, "B N A", Kind::kFloating, /*strided=*/true);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  EAGLE_CHECK(hidden_states.stride(2) == 1,
              "commit_step: the last dimension of hidden_states must be contiguous; call .contiguous() on it");
  check_paths(accept_index, accept_length, m["N"]);
  const int64_t batch = m["B"], path_length = m["P"], item = hidden_states.element_size();
  Tensor next_tokens = empty_like_device(draft_tokens, {batch, path_length}, ScalarType::Int);
  Tensor next_hidden = empty_like_device(hidden_states, {batch, path_length, m["A"]}, hidden_states.scalar_type());
  Tensor next_positions = empty_like_device(draft_tokens, {batch, path_length}, ScalarType::Int);
  Tensor next_context_len = empty_like_device(draft_tokens, {batch}, ScalarType::Int);
  const CommitStepParams p{
      .draft_tokens = draft_tokens.const_data_ptr<int32_t>(),
      .accept_index = accept_index.const_data_ptr<int32_t>(),
      .accept_length = accept_length.const_data_ptr<int32_t>(),
      .bonus_token = bonus_token.const_data_ptr<int32_t>(),
      .hidden_states = static_cast<const char*>(hidden_states.const_data_ptr()),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .next_tokens = next_tokens.mutable_data_ptr<int32_t>(),
      .next_hidden = static_cast<char*>(next_hidden.mutable_data_ptr()),
      .next_positions = next_positions.mutable_data_ptr<int32_t>(),
      .next_context_len = next_context_len.mutable_data_ptr<int32_t>(),
      .batch = batch,
      .num_nodes = m["N"],
      .path_length = path_length,
      .row_bytes = m["A"] * item,
      .batch_stride = hidden_states.stride(0) * item,
      .row_stride = hidden_states.stride(1) * item,
  };
#ifdef EAGLE_WITH_CUDA
  if (draft_tokens.is_cuda()) {
    const DeviceGuard guard(draft_tokens.get_device_index());
    cuda::commit_step(p, current_stream(draft_tokens));
    return {next_tokens, next_hidden, next_positions, next_context_len};
  }
#endif
  cpu::commit_step(p, torch_parallel_for());
  return {next_tokens, next_hidden, next_positions, next_context_len};
}

}  // namespace eagle::ops
