"""Top-k over a vocabulary in two steps: each block of it is summarised, then the summaries of a row are merged."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of, warps_for
from eagle_kernels.triton.common.ranking import LOWEST, key_id, key_value, rank_key


@triton.jit
def summarise_block(logits, row, in_rows, token, in_vocabulary, block, num_blocks, k, top_ptr, mass_ptr, key_ptr):
    """Stores a block's maximum, its sum of exp(logit - maximum) and its k best keys, descending.

    A block with NaN or +inf stores the maximum +inf, an empty or all -inf one stores -inf.

    logits: [M, V] float32; row, in_rows: [M]; token, in_vocabulary: [V]
    """
    logits = tl.where(in_vocabulary[None, :], logits, float("-inf"))
    top = tl.max(tl.where(logits != logits, float("inf"), logits), axis=1)
    anchor = tl.where(tl.abs(top) == float("inf"), 0.0, top)
    place = row * num_blocks + block
    tl.store(top_ptr + place, top, mask=in_rows)
    tl.store(mass_ptr + place, tl.sum(tl.exp(logits - anchor[:, None]), axis=1), mask=in_rows)
    keys = tl.where(in_vocabulary[None, :], rank_key(logits, token[None, :]), LOWEST)
    for i in range(k):
        best = tl.max(keys, axis=1)
        tl.store(key_ptr + place * k + i, best, mask=in_rows)
        keys = tl.where(keys == best[:, None], LOWEST, keys)


# grid: (rows); merges num_blocks descending lists of k keys
@triton.jit
def merge_blocks_kernel(
    top_ptr, mass_ptr, key_ptr, d2t_ptr, logprob_ptr, token_ptr, valid_ptr, num_blocks, k, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCK)
    exists = block < num_blocks

    # log-sum-exp of the row from those of its blocks
    tops = tl.load(top_ptr + row * num_blocks + block, mask=exists, other=float("-inf"))
    masses = tl.load(mass_ptr + row * num_blocks + block, mask=exists, other=0.0)
    top = tl.max(tops)
    valid = tl.abs(top) != float("inf")
    anchor = tl.where(valid, top, 0.0)
    log_mass = anchor + tl.log(tl.sum(tl.where(exists, masses * tl.exp(tops - anchor), 0.0)))
    tl.store(valid_ptr + row, valid)

    # the best head of all lists, k times; the list it came from moves on
    lists = key_ptr + (row * num_blocks + block) * k
    taken = tl.zeros((BLOCK,), tl.int32)
    heads = tl.load(lists, mask=exists, other=LOWEST)
    for i in range(k):
        best = tl.max(heads)
        token = tl.where(valid, key_id(best), i)
        logprob = tl.where(valid, key_value(best) - log_mass, float("-inf"))
        if d2t_ptr is not None:
            token += tl.load(d2t_ptr + token)
        tl.store(logprob_ptr + row * k + i, logprob)
        tl.store(token_ptr + row * k + i, token)
        won = heads == best
        taken += won.to(tl.int32)
        following = tl.load(lists + taken, mask=won & (taken < k), other=LOWEST)
        heads = tl.where(won, following, heads)


class BlockSummaries:
    """Buffers between the two steps, and the second step.

    top, mass: [rows, num_blocks] float32; keys: [rows, num_blocks, k] int64
    """

    def __init__(self, rows: int, num_blocks: int, k: int, device: torch.device):
        self.top = torch.empty(rows, num_blocks, dtype=torch.float32, device=device)
        self.mass = torch.empty_like(self.top)
        self.keys = torch.empty(rows, num_blocks, k, dtype=torch.int64, device=device)

    def merge(self, d2t: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(logprobs [rows, k], token_ids [rows, k], valid [rows])"""
        rows, num_blocks, k = self.keys.shape
        logprobs = self.top.new_empty(rows, k)
        token_ids = torch.empty(rows, k, dtype=torch.int32, device=self.top.device)
        valid = torch.empty(rows, dtype=torch.bool, device=self.top.device)
        block = block_of(num_blocks)
        if rows:
            merge_blocks_kernel[(rows,)](
                self.top,
                self.mass,
                self.keys,
                d2t,
                logprobs,
                token_ids,
                valid,
                num_blocks,
                k,
                BLOCK=block,
                num_warps=warps_for(block),
            )
        return logprobs, token_ids, valid
