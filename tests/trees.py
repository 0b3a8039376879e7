"""Random draft trees for tests: parents, ancestor masks, grown histories."""

import torch
from torch import Tensor

from eagle_kernels.reference.ancestor_mask import pack


def random_parents(num_nodes: int) -> list[int]:
    """A tree in level order: the root's parent is -1, every other parent is an earlier node."""
    parents = sorted(int(torch.randint(0, node, (1,))) for node in range(1, num_nodes))
    return [-1, *parents]


def ancestor_bits(parents: list[int]) -> Tensor:
    """[N, N] bool: node j is an ancestor of node i or node i itself."""
    bits = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            bits[node] |= bits[parent]
    return bits


def random_tree_mask(batch: int, num_nodes: int) -> Tensor:
    """[B, N, ceil(N / 64)] int64: one random tree per request."""
    return pack(torch.stack([ancestor_bits(random_parents(num_nodes)) for _ in range(batch)]))


def empty_history(batch: int, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, tokens and parents of a history that holds only the root."""
    scores = torch.full((batch, slots), -torch.inf)
    scores[:, 0] = 0
    tokens = torch.zeros(batch, slots, dtype=torch.int32)
    return scores, tokens, torch.full((batch, slots), -1, dtype=torch.int32)
