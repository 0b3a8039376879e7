"""expand_tree: grow a draft tree by one level."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


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
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Writes the K children of each of F frontier nodes into the history and returns the K best as the next frontier.

    Child (f, k) takes slot s = slot_offset + f * K + k: its score is the log-probability of its whole path,
    frontier_scores[f] + logprobs[f, k], and its parent frontier_slots[f]. The next frontier is this level's K best
    children in descending order; ties go to the lowest slot, NaN counts as -inf. This is the expansion phase of
    EAGLE-2 (Li et al., 2024, arXiv 2406.16858, section 4.1).

    Slot 0 is the root, written by the caller (score 0, parent -1). The first level has F = 1: score 0, slot 0, an
    empty mask, slot_offset 1, row_offset 0. A history of D levels needs M = 1 + K + (D - 1) * K * K slots.

    frontier_scores: [B, F] float32, cumulative log-probabilities
    frontier_slots:  [B, F] int32, their slots in the history
    frontier_mask:   [B, F, W] int64, bit r: row r of the draft's tree cache is an ancestor or the node itself
    logprobs:        [B, F, K] float32, of the children
    token_ids:       [B, F, K] int32, of the children
    node_scores:     [B, M] float32, history, written in place
    node_tokens:     [B, M] int32, history, written in place
    node_parents:    [B, M] int32, history of parent slots, written in place
    slot_offset:     first slot of this level
    row_offset:      tree-cache row of the next frontier's first node

    Returns
    next_scores: [B, K] float32, descending
    next_slots:  [B, K] int32
    next_tokens: [B, K] int32
    next_origin: [B, K] int32, index of the parent in the old frontier: whose hidden state to continue from
    next_mask:   [B, K, W] int64, frontier_mask[origin] with the bit row_offset + i set

    Raises RuntimeError when the level does not fit into the history or its rows into the mask.
    """
    return resolve("expand_tree", logprobs, backend)(
        frontier_scores,
        frontier_slots,
        frontier_mask,
        logprobs,
        token_ids,
        node_scores,
        node_tokens,
        node_parents,
        slot_offset,
        row_offset,
    )


@torch.library.register_fake("eagle_kernels::expand_tree")
def _(
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
    shape = (logprobs.shape[0], logprobs.shape[2])
    return (
        logprobs.new_empty(shape),
        token_ids.new_empty(shape),
        token_ids.new_empty(shape),
        token_ids.new_empty(shape),
        frontier_mask.new_empty((*shape, frontier_mask.shape[2])),
    )
