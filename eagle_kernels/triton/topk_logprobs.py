"""topk_logprobs in Triton: one pass over the logits in blocks, then a merge per row."""

import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.block_topk import BlockSummaries, summarise_block
from eagle_kernels.triton.common.launch import as_rows

BLOCK = 2048


# grid: (blocks of the vocabulary, rows)
@triton.jit
def topk_logprobs_kernel(
    logits_ptr, top_ptr, mass_ptr, key_ptr, vocabulary, k, num_blocks, logits_stride, BLOCK: tl.constexpr
):
    block = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64) + tl.arange(0, 1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocabulary
    logits = tl.load(logits_ptr + row[:, None] * logits_stride + token[None, :], mask=inside[None, :], other=0.0)
    summarise_block(
        logits.to(tl.float32), row, row >= 0, token, inside, block, num_blocks, k, top_ptr, mass_ptr, key_ptr
    )


def topk_logprobs(logits: Tensor, k: int, d2t: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    logits = as_rows(logits)
    rows, vocabulary = logits.shape
    num_blocks = triton.cdiv(vocabulary, BLOCK)
    summaries = BlockSummaries(rows, num_blocks, k, logits.device)
    if rows:
        topk_logprobs_kernel[(num_blocks, rows)](
            logits,
            summaries.top,
            summaries.mass,
            summaries.keys,
            vocabulary,
            k,
            num_blocks,
            logits.stride(0),
            BLOCK=BLOCK,
        )
    return summaries.merge(d2t)
