// The launchers of the CUDA kernels as C functions for ctypes. Each returns null, or what went wrong.
#include "common/build_tree.h"
#include "common/commit_step.h"
#include "common/compact_kv.h"
#include "common/expand_tree.h"
#include "common/gumbel_noise.h"
#include "common/sample_children.h"
#include "common/sample_tokens.h"
#include "common/topk_logprobs.h"
#include "common/verify_rejection.h"
#include "common/verify_tree.h"
#include "common/write_kv.h"
#include "launchers.h"

using namespace eagle;

extern "C" {

const char* topk_logprobs(float* logprobs, int32_t* token_ids, bool* valid, const void* logits, int64_t dtype,
                          int64_t row_stride, const int32_t* d2t, int64_t rows, int64_t vocabulary, int64_t k) {
  const TopkLogprobsParams p{logprobs,   token_ids, valid, logits,     static_cast<DType>(dtype),
                             row_stride, d2t,       rows,  vocabulary, k};
  return run(p, cuda::topk_logprobs_workspace, cuda::topk_logprobs);
}

const char* sample_tokens(int32_t* token_ids, const void* logits, int64_t dtype, int64_t batch_stride,
                          int64_t row_stride, const int32_t* position_ids, const int64_t* seed,
                          const float* temperature, const int32_t* top_k, const float* top_p, const float* min_p,
                          int64_t batch, int64_t num_nodes, int64_t vocabulary) {
  const LogitsView view{logits, static_cast<DType>(dtype), batch_stride, row_stride};
  const SamplingParamsView requests{seed, temperature, top_k, top_p, min_p};
  const SampleTokensParams p{token_ids, view, position_ids, requests, batch, num_nodes, vocabulary};
  return run(p, cuda::sample_tokens_workspace, cuda::sample_tokens);
}

const char* sample_children(int32_t* child_tokens, float* child_logprobs, const void* logits, int64_t dtype,
                            int64_t batch_stride, int64_t row_stride, const int32_t* node_ids,
                            const int32_t* num_children, const int32_t* num_fixed, const int32_t* context_len,
                            const int64_t* seed, const float* temperature, const int32_t* top_k, const float* top_p,
                            const float* min_p, const int32_t* d2t, int64_t batch, int64_t num_nodes,
                            int64_t vocabulary, int64_t max_children) {
  const LogitsView view{logits, static_cast<DType>(dtype), batch_stride, row_stride};
  const SamplingParamsView requests{seed, temperature, top_k, top_p, min_p};
  const SampleChildrenParams p{child_tokens, child_logprobs, view,  node_ids,  num_children, num_fixed,   context_len,
                               d2t,          requests,       batch, num_nodes, vocabulary,   max_children};
  return run(p, cuda::sample_children_workspace, cuda::sample_children);
}

const char* verify_rejection(int32_t* accept_index, int32_t* accept_length, int32_t* bonus_token, const void* target,
                             int64_t target_dtype, int64_t target_batch_stride, int64_t target_row_stride,
                             const void* draft, int64_t draft_dtype, int64_t draft_batch_stride,
                             int64_t draft_row_stride, const int32_t* draft_tokens, const int32_t* parent,
                             const int32_t* num_fixed, const int32_t* context_len, const int64_t* seed,
                             const float* temperature, const int32_t* top_k, const float* top_p, const float* min_p,
                             const int32_t* d2t, int64_t batch, int64_t num_nodes, int64_t vocabulary,
                             int64_t draft_vocabulary, int64_t max_depth, int64_t traversal) {
  const VerifyRejectionParams p{
      .accept_index = accept_index,
      .accept_length = accept_length,
      .bonus_token = bonus_token,
      .target_logits = {target, static_cast<DType>(target_dtype), target_batch_stride, target_row_stride},
      .draft_logits = {draft, static_cast<DType>(draft_dtype), draft_batch_stride, draft_row_stride},
      .draft_tokens = draft_tokens,
      .parent = parent,
      .num_fixed = num_fixed,
      .context_len = context_len,
      .d2t = d2t,
      .requests = {seed, temperature, top_k, top_p, min_p},
      .batch = batch,
      .num_nodes = num_nodes,
      .vocabulary = vocabulary,
      .draft_vocabulary = draft_vocabulary,
      .max_depth = max_depth,
      .traversal = traversal != 0,
  };
  return run(p, cuda::verify_rejection_workspace, cuda::verify_rejection);
}

const char* gumbel_noise(float* noise, const int64_t* seed, const int32_t* position_ids, int64_t batch, int64_t rows,
                         int64_t num_tokens, int64_t stream) {
  return guarded([&] {
    cuda::gumbel_noise({noise, seed, position_ids, batch, rows, num_tokens, static_cast<Stream>(stream)}, nullptr);
  });
}

const char* verify_tree(int32_t* accept_index, int32_t* accept_length, int32_t* bonus_token,
                        const int32_t* draft_tokens, const int32_t* parent, const int32_t* target_tokens, int64_t batch,
                        int64_t num_nodes, int64_t max_depth) {
  return guarded([&] {
    cuda::verify_tree(
        {accept_index, accept_length, bonus_token, draft_tokens, parent, target_tokens, batch, num_nodes, max_depth},
        nullptr);
  });
}

const char* expand_tree(const float* frontier_scores, const int32_t* frontier_slots, const int64_t* frontier_mask,
                        const float* logprobs, const int32_t* token_ids, float* node_scores, int32_t* node_tokens,
                        int32_t* node_parents, float* next_scores, int32_t* next_slots, int32_t* next_tokens,
                        int32_t* next_origin, int64_t* next_mask, int64_t batch, int64_t frontier, int64_t branching,
                        int64_t words, int64_t slots, int64_t slot_offset, int64_t row_offset) {
  return guarded([&] {
    cuda::expand_tree(
        {frontier_scores, frontier_slots, frontier_mask, logprobs,    token_ids,   node_scores, node_tokens,
         node_parents,    next_scores,    next_slots,    next_tokens, next_origin, next_mask,   batch,
         frontier,        branching,      words,         slots,       slot_offset, row_offset},
        nullptr);
  });
}

const char* build_tree(const float* node_scores, const int32_t* node_tokens, const int32_t* node_parents,
                       const int32_t* context_len, int32_t* draft_tokens, int32_t* parent, int32_t* depth,
                       int32_t* position_ids, int64_t* ancestor_mask, int32_t* node_slots, int64_t batch, int64_t slots,
                       int64_t num_nodes, int64_t words) {
  return guarded([&] {
    cuda::build_tree({node_scores, node_tokens, node_parents, context_len, draft_tokens, parent, depth, position_ids,
                      ancestor_mask, node_slots, batch, slots, num_nodes, words},
                     nullptr);
  });
}

const char* compact_kv(const KvCacheView* caches, const int32_t* accept_index, const int32_t* accept_length,
                       const int32_t* context_len, const int32_t* page_ids, int64_t columns, int64_t num_pages,
                       int64_t page_size, int64_t num_caches, int64_t batch, int64_t path_length) {
  const PageTable pages = make_page_table(page_ids, columns, num_pages, page_size);
  return guarded([&] {
    cuda::compact_kv({caches, accept_index, accept_length, context_len, pages, num_caches, batch, path_length},
                     nullptr);
  });
}

const char* write_kv(const KvStatesView* states, const KvCacheView* caches, const int32_t* cache_rows,
                     const int32_t* page_ids, int64_t columns, int64_t num_pages, int64_t page_size, int64_t batch,
                     int64_t rows) {
  const PageTable pages = make_page_table(page_ids, columns, num_pages, page_size);
  return guarded([&] {
    cuda::write_kv({{states[0], states[1]}, {caches[0], caches[1]}, pages, cache_rows, batch, rows}, nullptr);
  });
}

const char* commit_step(const int32_t* draft_tokens, const int32_t* accept_index, const int32_t* accept_length,
                        const int32_t* bonus_token, const char* hidden_states, const int32_t* context_len,
                        int32_t* next_tokens, char* next_hidden, int32_t* next_positions, int32_t* next_context_len,
                        int64_t batch, int64_t num_nodes, int64_t path_length, int64_t row_bytes, int64_t batch_stride,
                        int64_t row_stride) {
  return guarded([&] {
    cuda::commit_step(
        {draft_tokens, accept_index, accept_length, bonus_token, hidden_states, context_len, next_tokens, next_hidden,
         next_positions, next_context_len, batch, num_nodes, path_length, row_bytes, batch_stride, row_stride},
        nullptr);
  });
}

}  // extern "C"
