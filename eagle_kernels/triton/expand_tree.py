"""expand_tree in Triton."""

import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of, warps_for
from eagle_kernels.triton.common.ranking import LOWEST, key_id, key_value, rank_key


# grid: (batch); the K best of F * K children, one after the other
@triton.jit
def expand_tree_kernel(
    frontier_score_ptr,
    frontier_slot_ptr,
    frontier_mask_ptr,
    logprob_ptr,
    token_ptr,
    node_score_ptr,
    node_token_ptr,
    node_parent_ptr,
    next_score_ptr,
    next_slot_ptr,
    next_token_ptr,
    next_origin_ptr,
    next_mask_ptr,
    frontier,
    branching,
    slots,
    words,
    slot_offset,
    row_offset,
    BLOCK: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    child = tl.arange(0, BLOCK)
    exists = child < frontier * branching
    origin = b * frontier + child // branching

    # every child goes into the history
    score = tl.load(frontier_score_ptr + origin, mask=exists, other=0.0)
    score += tl.load(logprob_ptr + b * frontier * branching + child, mask=exists, other=0.0)
    token = tl.load(token_ptr + b * frontier * branching + child, mask=exists, other=0)
    history = b * slots + slot_offset + child
    tl.store(node_score_ptr + history, score, mask=exists)
    tl.store(node_token_ptr + history, token, mask=exists)
    tl.store(node_parent_ptr + history, tl.load(frontier_slot_ptr + origin, mask=exists, other=0), mask=exists)

    # the best of them are the next frontier
    keys = rank_key(tl.where(score != score, float("-inf"), score), child)
    keys = tl.where(exists, keys, LOWEST)
    for i in range(branching):
        best = tl.max(keys)
        keys = tl.where(keys == best, LOWEST, keys)
        chosen = key_id(best)
        place = b * branching + i
        tl.store(next_score_ptr + place, key_value(best))
        tl.store(next_slot_ptr + place, slot_offset + chosen)
        tl.store(next_token_ptr + place, tl.load(token_ptr + b * frontier * branching + chosen))
        tl.store(next_origin_ptr + place, chosen // branching)
        # its ancestors are its parent's and itself
        cache_row = row_offset + i
        for w in range(words):
            inherited = tl.load(frontier_mask_ptr + (b * frontier + chosen // branching) * words + w)
            own = tl.where(cache_row // 64 == w, tl.full((), 1, tl.int64) << (cache_row % 64), 0)
            tl.store(next_mask_ptr + place * words + w, inherited | own)


def expand_tree(
    frontier_scores: Tensor,
    frontier_slots: Tensor,
    frontier_mask: Tensor,
    logprobs: Tensor,
    token_ids: Tensor,
    node_scores: Tensor,
    node_tokens: Tensor,
    node_parents: Tensor,
    slot_offset: int,
    row_offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, frontier, branching = logprobs.shape
    words = frontier_mask.shape[2]
    next_scores = logprobs.new_empty(batch, branching)
    next_slots, next_tokens, next_origin = (token_ids.new_empty(batch, branching) for _ in range(3))
    next_mask = frontier_mask.new_empty(batch, branching, words)
    block = block_of(frontier * branching)
    if batch:
        expand_tree_kernel[(batch,)](
            frontier_scores.contiguous(),
            frontier_slots.contiguous(),
            frontier_mask.contiguous(),
            logprobs.contiguous(),
            token_ids.contiguous(),
            node_scores,
            node_tokens,
            node_parents,
            next_scores,
            next_slots,
            next_tokens,
            next_origin,
            next_mask,
            frontier,
            branching,
            node_scores.shape[1],
            words,
            slot_offset,
            row_offset,
            BLOCK=block,
            num_warps=warps_for(block),
        )
    return next_scores, next_slots, next_tokens, next_origin, next_mask
