"""build_tree in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of, warps_for
from eagle_kernels.triton.common.ranking import LOWEST, key_id, rank_key


# grid: (batch)
@triton.jit
def build_tree_kernel(
    node_score_ptr,
    node_token_ptr,
    node_parent_ptr,
    context_ptr,
    draft_token_ptr,
    parent_ptr,
    depth_ptr,
    position_ptr,
    mask_ptr,
    node_slot_ptr,
    node_of_slot_ptr,
    slots,
    num_nodes,
    WORDS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    node_score_ptr += b * slots
    node_token_ptr += b * slots
    node_parent_ptr += b * slots
    node_of_slot_ptr += b * slots
    slot = tl.arange(0, BLOCK_M)
    exists = slot < slots
    score = tl.load(node_score_ptr + slot, mask=exists, other=float("-inf"))
    parent_slot = tl.load(node_parent_ptr + slot, mask=exists, other=-1)

    # candidates: a score above -inf (which NaN is not) and an earlier slot as parent
    candidate = (score > float("-inf")) & (parent_slot >= 0) & (parent_slot < slot)
    keys = tl.where(candidate, rank_key(score, slot), LOWEST)

    # keep the best candidate whose parent is kept, again and again, never going back up the ranking
    kept = slot == 0
    reachable = parent_slot == 0
    count = 1
    best = tl.max(tl.where(reachable, keys, LOWEST))
    while (count < num_nodes) & (best > LOWEST):
        chosen = key_id(best)
        kept = kept | (slot == chosen)
        reachable = reachable | (parent_slot == chosen)
        count += 1
        best = tl.max(tl.where(reachable & (keys < best), keys, LOWEST))

    # number the kept slots in ascending order
    number = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(node_of_slot_ptr + slot, number, mask=exists)
    tl.store(node_slot_ptr + b * num_nodes + number, slot, mask=kept)
    tl.debug_barrier()  # the next phase reads what other threads stored

    node = tl.arange(0, BLOCK_N)
    inside, real = node < num_nodes, node < count
    place = b * num_nodes + node
    own_slot = tl.load(node_slot_ptr + place, mask=real, other=0)
    up_slot = tl.load(node_parent_ptr + own_slot, mask=real & (node > 0), other=0)
    parent = tl.load(node_of_slot_ptr + up_slot, mask=real & (node > 0), other=-1)
    tl.store(draft_token_ptr + place, tl.load(node_token_ptr + own_slot), mask=inside)
    tl.store(node_slot_ptr + place, -1, mask=inside & (node >= count))
    tl.store(parent_ptr + place, parent, mask=inside)
    tl.debug_barrier()  # the walk reads the parents of other nodes

    # all nodes walk up to the root together, counting steps and collecting bits
    depth = tl.zeros((BLOCK_N,), tl.int32)
    low, high = ancestor_bits(node)
    above = parent
    while tl.max(above) >= 0:
        walking = above >= 0
        more_low, more_high = ancestor_bits(above)
        low, high = low | tl.where(walking, more_low, 0), high | tl.where(walking, more_high, 0)
        depth += walking.to(tl.int32)
        above = tl.load(parent_ptr + b * num_nodes + above, mask=walking, other=-1)
    tl.store(depth_ptr + place, depth, mask=inside)
    tl.store(position_ptr + place, tl.load(context_ptr + b) + depth, mask=inside)
    tl.store(mask_ptr + place * WORDS, low, mask=inside)
    if WORDS == 2:
        tl.store(mask_ptr + place * WORDS + 1, high, mask=inside)


@triton.jit
def ancestor_bits(node):
    """The two mask words in which only the node's own bit is set."""
    bit = tl.full((1,), 1, tl.int64) << (node % 64).to(tl.int64)
    return tl.where(node < 64, bit, 0), tl.where(node < 64, 0, bit)


def build_tree(
    node_scores: Tensor, node_tokens: Tensor, node_parents: Tensor, context_len: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, slots = node_scores.shape
    words = triton.cdiv(num_nodes, 64)
    draft_tokens, parent, depth, position_ids, node_slots = (node_tokens.new_empty(batch, num_nodes) for _ in range(5))
    ancestor_mask = torch.empty(batch, num_nodes, words, dtype=torch.int64, device=node_tokens.device)
    node_of_slot = node_tokens.new_empty(batch, slots)
    block = block_of(slots)
    if batch:
        build_tree_kernel[(batch,)](
            node_scores.contiguous(),
            node_tokens.contiguous(),
            node_parents.contiguous(),
            context_len,
            draft_tokens,
            parent,
            depth,
            position_ids,
            ancestor_mask,
            node_slots,
            node_of_slot,
            slots,
            num_nodes,
            WORDS=words,
            BLOCK_M=block,
            BLOCK_N=block_of(num_nodes),
            num_warps=warps_for(block),
        )
    return draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots
