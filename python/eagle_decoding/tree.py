"""The draft tree that one round verifies, and the ancestor masks of trees that are known on the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Proposal:
    """The laws that a tree's children were drawn from, where they were drawn and not chosen: what exactness needs.

    draft_logits: [batch, num_nodes, draft_vocab] before temperature: row n is what n's children were drawn from by
                  `sample_children`; rows of leaves are not read
    num_fixed:    [batch, num_nodes] int32, how many of a node's children, its first, were chosen without noise; None
                  where all were drawn
    d2t:          [draft_vocab] int32, offset from a draft id to the target's; None where they are the same
    """

    draft_logits: Tensor
    num_fixed: Tensor | None = None
    d2t: Tensor | None = None


@dataclass
class DraftTree:
    """Nodes of a batch of trees; node 0 is the root, a parent comes before its children.

    draft_tokens:  [batch, num_nodes] int32
    parent:        [batch, num_nodes] int32, -1 at the root and at padding
    depth:         [batch, num_nodes] int32, 0 at the root
    position_ids:  [batch, num_nodes] int32, context_len + depth
    ancestor_mask: [batch, num_nodes, words] int64, bit j set when node j is an ancestor or the node itself
    node_scores:   [batch, num_nodes] float32, cumulative draft log-probability; None when nothing was drafted
    max_depth:     bound on depth
    proposal:      what sampled children were drawn from, siblings in draw order; None for trees without sampled ones
    target_tokens: [batch, num_nodes] int32, what the target chose after each node, -1 where no walk came by; written
                   by verification, None before it and for trees with sampled children
    """

    draft_tokens: Tensor
    parent: Tensor
    depth: Tensor
    position_ids: Tensor
    ancestor_mask: Tensor
    node_scores: Tensor | None
    max_depth: int
    proposal: Proposal | None = None
    target_tokens: Tensor | None = None

    @property
    def num_nodes(self) -> int:
        return self.draft_tokens.shape[1]


def root_only(root_tokens: Tensor, context_len: Tensor) -> DraftTree:
    """The tree without drafts: verifying it is plain decoding.

    root_tokens: [batch] int32, last committed token of each request
    context_len: [batch] int32, its position
    """
    zeros = torch.zeros_like(root_tokens)[:, None]
    return DraftTree(
        draft_tokens=root_tokens[:, None],
        parent=zeros - 1,
        depth=zeros,
        position_ids=context_len[:, None],
        ancestor_mask=torch.ones_like(zeros, dtype=torch.int64)[..., None],
        node_scores=None,
        max_depth=0,
    )


def ancestor_words(parents: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """[nodes, words] int64: bit j of a row is set when node j is an ancestor or the node itself.

    parents: of each node an earlier one, -1 for none
    """
    masks: list[int] = []
    for node, parent in enumerate(parents):
        masks.append((masks[parent] if parent >= 0 else 0) | 1 << node)
    words = range(-(-len(masks) // 64))
    unsigned = [[mask >> (64 * word) & (2**64 - 1) for word in words] for mask in masks]
    return torch.tensor(unsigned, dtype=torch.uint64).view(torch.int64).to(device)


def causal_words(rows: int, device: torch.device | str) -> Tensor:
    """[1, rows, words] int64, the ancestor mask of a chain: row i sees rows 0..i."""
    return ancestor_words(range(-1, rows - 1), device)[None]
