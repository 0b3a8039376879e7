"""Growing a dynamic draft tree level by level, whatever computes a node's children (EAGLE-2, arXiv 2406.16858)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.config import TreeConfig
from eagle_decoding.tree import DraftTree


class Level(NamedTuple):
    """The topk nodes of a level that are looked at next.

    tokens:        [batch, topk] int32
    depth:         of these nodes
    ancestor_mask: [batch, topk, words] int64, bit r set when row r of the nodes run so far is an ancestor or the node
    first_row:     row of the first of them
    """

    tokens: Tensor
    depth: int
    ancestor_mask: Tensor
    first_row: int


def grow(
    tree: TreeConfig,
    root_tokens: Tensor,
    context_len: Tensor,
    root_logits: Tensor,
    forward: Callable[[Level], Tensor],
    rank: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> DraftTree:
    """Looks at topk children of the topk best nodes of each level, then keeps the best num_nodes of all it looked at.

    root_tokens: [batch] int32
    context_len: [batch] int32, position of the root
    root_logits: [batch, 1, vocabulary]
    forward:     runs a level, returns its logits [batch, topk, vocabulary]
    rank:        of logits, and position_ids [batch] of the children: log-probabilities and tokens [batch, rows, topk]
    """
    batch, device = len(root_tokens), root_tokens.device
    scores = torch.zeros(batch, tree.num_candidates, device=device)
    tokens = root_tokens[:, None].repeat(1, tree.num_candidates)
    parents = torch.full_like(tokens, -1)
    words = max(1, -(-(tree.max_depth - 1) * tree.topk // 64))
    frontier = (
        torch.zeros(batch, 1, device=device),
        torch.zeros(batch, 1, dtype=torch.int32, device=device),
        torch.zeros(batch, 1, words, dtype=torch.int64, device=device),
    )
    logits, slot = root_logits, 1
    for level in range(tree.max_depth):
        logprobs, children = rank(logits, context_len + level + 1)
        row = level * tree.topk
        next_scores, next_slots, next_tokens, _, mask = eagle_kernels.expand_tree(
            *frontier, logprobs, children, scores, tokens, parents, slot, row
        )
        if level + 1 < tree.max_depth:
            logits = forward(Level(next_tokens, level + 1, mask, row))
        slot += children.shape[1] * tree.topk
        frontier = (next_scores, next_slots, mask)
    draft_tokens, parent, depth, position_ids, ancestor_mask, node_slots = eagle_kernels.build_tree(
        scores, tokens, parents, context_len, tree.num_nodes
    )
    node_scores = scores.gather(1, node_slots.clamp(min=0).long())
    return DraftTree(draft_tokens, parent, depth, position_ids, ancestor_mask, node_scores, tree.max_depth)
