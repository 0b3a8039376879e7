// commit_step: rows of hidden states copied 16 bytes a thread, and the tokens that follow them.
#include "common/commit_step.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 256;

// The scalars of row i of request b.
__device__ void write_scalars(const CommitStepParams& p, int64_t b, int64_t i, int32_t accepted, const int32_t* path) {
  const int64_t at = b * p.path_length + i;
  const int32_t context = p.context_len[b];
  p.next_positions[at] = context + static_cast<int32_t>(i < accepted ? i : accepted);
  int32_t token = 0;
  if (i < accepted)
    token = p.draft_tokens[b * p.num_nodes + path[i + 1]];
  else if (i == accepted)
    token = p.bonus_token[b];
  p.next_tokens[at] = token;
  if (i == 0) p.next_context_len[b] = context + accepted + 1;
}

// grid: (batch, path_length, blocks of 256 words); a thread copies one word.
template <class Word>
__global__ void __launch_bounds__(kThreads) commit_step_kernel(const CommitStepParams p) {
  wait_for_earlier_kernels();
  const int64_t b = blockIdx.x, i = blockIdx.y;
  const int32_t* path = p.accept_index + b * p.path_length;
  const int32_t accepted = p.accept_length[b];
  if (blockIdx.z == 0 && threadIdx.x == 0) write_scalars(p, b, i, accepted, path);

  const int64_t byte = (static_cast<int64_t>(blockIdx.z) * kThreads + threadIdx.x) * sizeof(Word);
  if (byte >= p.row_bytes) return;
  Word word{};
  if (i <= accepted)
    word = *reinterpret_cast<const Word*>(p.hidden_states + b * p.batch_stride + path[i] * p.row_stride + byte);
  *reinterpret_cast<Word*>(p.next_hidden + (b * p.path_length + i) * p.row_bytes + byte) = word;
}

template <class Word>
void launch_copy(const CommitStepParams& p, void* stream) {
  const int64_t blocks = ceil_div(p.row_bytes, kThreads * sizeof(Word));
  const dim3 grid(p.batch, p.path_length, blocks > 0 ? blocks : 1);
  launch(&commit_step_kernel<Word>, grid, dim3(kThreads), stream, p);
}

}  // namespace

void commit_step(const CommitStepParams& p, void* stream) {
  if (p.batch * p.path_length == 0) return;
  const auto address = reinterpret_cast<uintptr_t>(p.hidden_states) | reinterpret_cast<uintptr_t>(p.next_hidden);
  const bool aligned = ((address | p.row_bytes | p.batch_stride | p.row_stride) & (sizeof(uint4) - 1)) == 0;
  aligned ? launch_copy<uint4>(p, stream) : launch_copy<uint16_t>(p, stream);
  check_launch("commit_step");
}

}  // namespace eagle::cuda
