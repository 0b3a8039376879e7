// draft_input: token embedding and hidden state, each normalised by its own block.
#include "common/draft_input.h"
#include "cuda/dependent.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_norm.cuh"

namespace eagle::cuda {
namespace {

// grid: (rows, 2): embeddings and hidden states. A device cannot raise: an id outside the vocabulary reads its edge.
template <class T>
__global__ __launch_bounds__(kNormThreads) void draft_input_kernel(const __grid_constant__ DraftInputParams p) {
  const bool embeds = blockIdx.y == 0;
  const T* weight = static_cast<const T*>(embeds ? p.embed_norm_weight : p.hidden_norm_weight);
  prefetch_row(weight, p.size);
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x, size = p.size;
  T* to = static_cast<T*>(p.output) + row * 2 * size;
  if (embeds) {
    const int64_t token = min(max(static_cast<int64_t>(p.token_ids[row]), int64_t{0}), p.vocabulary - 1);
    const T* embedding = static_cast<const T*>(p.embed_weight) + token * size;
    normalise_row(embedding, weight, size, p.eps, to);
  } else {
    const T* hidden = reinterpret_cast<const T*>(p.hidden_states[row]);
    normalise_row(hidden, weight, size, p.eps, to + size);
  }
}

}  // namespace

void draft_input(const DraftInputParams& p, void* stream) {
  const int64_t rows = p.hidden_states.count;
  if (rows == 0) return;
  dispatch(p.dtype, [&](auto element) {
    launch(draft_input_kernel<decltype(element)>, dim3(rows, 2), kNormThreads, stream, p);
  });
  check_launch("draft_input");
}

}  // namespace eagle::cuda
