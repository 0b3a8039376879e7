"""Which nodes of a static tree a draft layer runs, depth by depth, and which cache rows they see."""

from typing import NamedTuple

import torch
from torch import Tensor

from eagle_decoding.drafts.static_tree import StaticTree


class Step(NamedTuple):
    """The inner nodes of one depth below the root.

    origin:        [P] int64, place of each node's parent among the inner nodes of the depth above (0 below the root)
    ancestor_mask: [1, P, words] int64, bit r set when row r of the inner nodes is an ancestor or the node itself
    first_row:     row of the first of them
    """

    origin: Tensor
    ancestor_mask: Tensor
    first_row: int


def steps_of(tree: StaticTree) -> list[Step]:
    """One step per depth that has children of its own; rows count inner nodes below the root in order of depth."""
    inner = [level.parents.tolist() for level in tree.levels]
    row = {node: r for r, node in enumerate(node for nodes in inner[1:] for node in nodes)}
    words = max(1, -(-len(row) // 64))
    device = tree.parent.device
    steps, first_row = [], 0
    for above, nodes, level in zip(inner, inner[1:], tree.levels[1:], strict=False):
        paths = [path[1:] for path in level.paths.tolist()]
        origin = [above.index(int(tree.parent[node])) for node in nodes]
        masks = [sum(1 << row[node] for node in path) for path in paths]
        signed = [[_signed(mask >> (64 * word) & (2**64 - 1)) for word in range(words)] for mask in masks]
        steps.append(Step(torch.tensor(origin, device=device), torch.tensor(signed, device=device)[None], first_row))
        first_row += len(nodes)
    return steps


def _signed(word: int) -> int:
    return word - 2**64 if word >> 63 else word
