// lm_head_topk: norm, then the product whose blocks keep their best k logits, then a merge per row.
#include "common/lm_head_topk.h"
#include "common/rms_norm.h"
#include "cuda/dependent.cuh"
#include "cuda/gemm_launch.cuh"
#include "cuda/tile_topk.cuh"

namespace eagle::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxTopk = 64;
static_assert(kMaxTopk <= kGemmOutputs, "a tile holds k candidates");

int64_t num_tiles(const LmHeadTopkParams& p) { return ceil_div(p.vocabulary, kGemmOutputs); }

// grid: (rows)
__global__ __launch_bounds__(kThreads) void merge_kernel(const __grid_constant__ LmHeadTopkParams p, MergedRow merged) {
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x;
  merged.candidates += row * merged.tiles * p.k;
  merged.sums += row * merged.tiles;
  merged.first = reinterpret_cast<uint64_t*>(dynamic_shared());
  merged.cursors = reinterpret_cast<uint8_t*>(merged.first + merged.tiles * merged.kept);
  merged.load();
  const auto token = [&](int32_t id) { return p.d2t ? id + p.d2t[id] : id; };

  const float log_sum_exp = merged.log_sum_exp();
  wait_copies<0>();
  __syncthreads();  // what is kept is there
  if (warp_id() > 0) return;
  const bool valid = log_sum_exp == log_sum_exp;
  if (lane_id() == 0) p.valid[row] = valid;
  merged.for_each<kMaxTopk>([&](int rank, uint64_t best) {
    p.logprobs[row * p.k + rank] = valid ? candidate_logit(best) - log_sum_exp : kNoLogit;
    p.token_ids[row * p.k + rank] = token(valid ? candidate_id(best) : rank);
  });
}

}  // namespace

int64_t lm_head_topk_workspace(const LmHeadTopkParams& p) {
  return p.hidden_states.count * num_tiles(p) * static_cast<int64_t>(p.k * sizeof(uint64_t) + sizeof(ExpSum));
}

void lm_head_topk(const LmHeadTopkParams& p, void* workspace, void* stream) {
  const int64_t rows = p.hidden_states.count, tiles = num_tiles(p);
  if (rows == 0) return;
  const Rows normed = contiguous_rows(p.normed, rows, p.size * element_size(p.dtype));
  rms_norm({.dtype = p.dtype,
            .input = p.hidden_states,
            .weight = p.norm_weight,
            .output = normed,
            .size = p.size,
            .eps = p.eps},
           stream);
  auto* candidates = static_cast<uint64_t*>(workspace);
  auto* sums = reinterpret_cast<ExpSum*>(candidates + rows * tiles * p.k);
  const GemmParams product{
      .dtype = p.dtype, .input = normed, .weight = p.lm_head_weight, .inner = p.size, .outputs = p.vocabulary};
  launch_any_gemm(product, TileTopk{candidates, sums, static_cast<int>(p.k)}, {}, stream);
  const MergedRow merged{.candidates = candidates,
                         .sums = sums,
                         .tiles = static_cast<int>(tiles),
                         .k = static_cast<int>(p.k),
                         .kept = MergedRow::kept_candidates(tiles, p.k)};
  launch_shared(merge_kernel, rows, kThreads, MergedRow::shared_bytes(tiles, p.k), stream, p, merged);
  check_launch("lm_head_topk");
}

}  // namespace eagle::cuda
