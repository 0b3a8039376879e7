"""Rounds that accept a given number of drafts whatever the target chose: only their time means anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from eagle_decoding import decoder
from eagle_decoding.output import Output
from eagle_decoding.sampling import NodeSampler
from eagle_decoding.tree import DraftTree


class ForcedSampler(NodeSampler):
    """Samples and walks as ever, then puts another path in the place of the one that was found.

    The path leads to the first node at depth `accepted`, or at the greatest depth below it that the tree has. Finding
    it takes a dozen small kernels a round more than a real round has; all of them run on the device, so that rounds can
    be captured.
    """

    def __init__(self, accepted: int, *args: Any):
        super().__init__(*args)
        self.accepted = accepted

    def verify(self, logits: Tensor, tree: DraftTree, output: Output) -> tuple[Tensor, Tensor, Tensor]:
        super().verify(logits, tree, output)
        accept_index, accept_length, node = forced_path(tree, self.accepted)
        assert tree.target_tokens is not None
        return accept_index, accept_length, tree.target_tokens.gather(1, node).squeeze(1)


def forced_path(tree: DraftTree, accepted: int) -> tuple[Tensor, Tensor, Tensor]:
    """accept_index [batch, max_depth + 1] and accept_length [batch] as `verify_tree` gives them, and the last node
    [batch, 1] int64."""
    real = (tree.parent >= 0) & (tree.depth <= accepted)
    node = torch.where(real, tree.depth, 0).argmax(1, keepdim=True)  # nodes of padding count as the root
    words = tree.ancestor_mask.gather(1, node[..., None].expand(-1, -1, tree.ancestor_mask.shape[-1]))
    index = torch.arange(tree.num_nodes, device=node.device)
    on_path = (words[:, 0, index // 64] >> (index % 64)) & 1
    path = torch.where(on_path.bool(), index, tree.num_nodes).sort(dim=1).values[:, : tree.max_depth + 1]
    return torch.where(path < tree.num_nodes, path, -1).int(), tree.depth.gather(1, node).squeeze(1), node


@contextmanager
def accepting(drafts: int) -> Iterator[None]:
    """Every decoder accepts this many drafts a round, or as many as its tree is deep."""
    stock = decoder.NodeSampler
    decoder.NodeSampler = partial(ForcedSampler, drafts)
    try:
        yield
    finally:
        decoder.NodeSampler = stock
