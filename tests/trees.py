"""Random draft trees for tests: parents, ancestor masks, grown histories."""

import torch
from torch import Tensor

import eagle_kernels
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


def grown_history(batch: int, branching: int, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """A history grown level by level by the reference of expand_tree, from random log-probabilities."""
    history = empty_history(batch, 1 + branching + (depth - 1) * branching**2)
    scores, slots = torch.zeros(batch, 1), torch.zeros(batch, 1, dtype=torch.int32)
    mask, slot_offset = torch.zeros(batch, 1, 1, dtype=torch.int64), 1
    for _ in range(depth):
        logprobs = torch.randn(batch, scores.shape[1], 50).log_softmax(-1).topk(branching).values
        tokens = torch.randint(0, 50000, logprobs.shape, dtype=torch.int32)
        children = scores.shape[1] * branching
        scores, slots, _, _, mask = eagle_kernels.expand_tree(
            scores, slots, mask, logprobs, tokens, *history, slot_offset, 0, backend="reference"
        )
        slot_offset += children
    return history
