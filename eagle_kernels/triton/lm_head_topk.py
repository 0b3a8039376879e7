"""lm_head_topk in Triton: norm, then blocks of logits that live in registers only, then a merge per row."""

import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.block_topk import BlockSummaries, summarise_block
from eagle_kernels.triton.common.launch import as_elements, as_rows, row_block, tuned
from eagle_kernels.triton.common.products import fitting_products, stream_products
from eagle_kernels.triton.rms_norm import rms_norm

BLOCK_N = 64  # fixed: the summaries' shape depends on it
CONFIGS = [
    triton.Config({"BLOCK_K": depth}, num_warps=warps, num_stages=stages)
    for depth, warps, stages in [(64, 4, 4), (128, 4, 3), (128, 8, 3)]
]


# grid: (blocks of the vocabulary, blocks of rows)
@tuned(CONFIGS, key=["vocabulary", "width", "BLOCK_M"], fitting=fitting_products)
@triton.jit
def lm_head_kernel(
    normed_ptr,
    weight_ptr,
    scale_ptr,
    top_ptr,
    mass_ptr,
    key_ptr,
    rows,
    vocabulary,
    width,
    k,
    num_blocks,
    weight_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    block = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    token = block * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows, in_vocabulary = row < rows, token < vocabulary
    logits = stream_products(
        normed_ptr,
        row,
        in_rows,
        width,
        weight_ptr,
        scale_ptr,
        token.to(tl.int64),
        in_vocabulary,
        weight_stride,
        width,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    summarise_block(logits, row, in_rows, token, in_vocabulary, block, num_blocks, k, top_ptr, mass_ptr, key_ptr)


def lm_head_topk(
    hidden_states: Tensor,
    norm_weight: Tensor,
    eps: float,
    lm_head_weight: Tensor,
    k: int,
    d2t: Tensor | None = None,
    lm_head_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    normed = rms_norm(hidden_states, norm_weight, eps)
    x, vocabulary = as_rows(normed), lm_head_weight.shape[0]
    rows, width = x.shape
    num_blocks, block_m = triton.cdiv(vocabulary, BLOCK_N), row_block(rows)
    summaries = BlockSummaries(rows, num_blocks, k, x.device)
    if rows:
        lm_head_kernel[(num_blocks, triton.cdiv(rows, block_m))](
            x,
            as_elements(lm_head_weight),
            lm_head_scale,
            summaries.top,
            summaries.mass,
            summaries.keys,
            rows,
            vocabulary,
            width,
            k,
            num_blocks,
            lm_head_weight.stride(0),
            BLOCK_M=block_m,
            BLOCK_N=BLOCK_N,
        )
    logprobs, token_ids, valid = summaries.merge(d2t)
    shape = hidden_states.shape[:2]
    return normed, logprobs.view(*shape, k), token_ids.view(*shape, k), valid.view(shape)
