"""build_tree in plain torch."""

import math

import torch
from torch import Tensor

from eagle_kernels.reference.ancestor_mask import pack


def build_tree(
    node_scores: Tensor, node_tokens: Tensor, node_parents: Tensor, context_len: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    trees = [
        _build(scores, tokens, parents, num_nodes)
        for scores, tokens, parents in zip(
            node_scores.tolist(), node_tokens.tolist(), node_parents.tolist(), strict=True
        )
    ]
    draft_tokens, parent, depth, node_slots = (
        torch.tensor(column, dtype=torch.int32, device=node_scores.device).reshape(-1, num_nodes)
        for column in (list(zip(*trees, strict=True)) or [()] * 4)
    )
    return draft_tokens, parent, depth, context_len[:, None] + depth, pack(_ancestors(parent)), node_slots


def _build(scores: list[float], tokens: list[int], parents: list[int], num_nodes: int) -> tuple[list[int], ...]:
    """One request: (draft_tokens, parent, depth, node_slots), padded to num_nodes."""
    kept = {0}
    candidates = [slot for slot in range(1, len(scores)) if scores[slot] > -math.inf]  # False for NaN
    for slot in sorted(candidates, key=lambda slot: (-scores[slot], slot)):
        if len(kept) == num_nodes:
            break
        if parents[slot] < slot and parents[slot] in kept:
            kept.add(slot)
    slots = sorted(kept)
    node_of = {slot: node for node, slot in enumerate(slots)}
    parent, depth = [-1], [0]
    for slot in slots[1:]:
        parent.append(node_of[parents[slot]])
        depth.append(depth[parent[-1]] + 1)
    padding = num_nodes - len(slots)
    return (
        [tokens[slot] for slot in slots] + [tokens[0]] * padding,
        parent + [-1] * padding,
        depth + [0] * padding,
        slots + [-1] * padding,
    )


def _ancestors(parent: Tensor) -> Tensor:
    """[B, N] parent -> [B, N, N] bool: node j is node i's ancestor or itself."""
    num_nodes = parent.shape[1]
    bits = torch.eye(num_nodes, dtype=torch.bool, device=parent.device).repeat(parent.shape[0], 1, 1)
    for node in range(1, num_nodes):
        above = parent[:, node].long()
        inherited = bits.gather(1, above.clamp(min=0)[:, None, None].expand(-1, 1, num_nodes))[:, 0]
        bits[:, node] |= inherited & (above >= 0)[:, None]
    return bits
