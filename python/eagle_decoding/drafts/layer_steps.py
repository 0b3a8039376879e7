"""Which nodes of a static tree a draft layer runs, depth by depth, and which cache rows they see."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from eagle_decoding.drafts.static_tree import StaticTree
from eagle_decoding.tree import ancestor_words


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
    parents, device = tree.parent.tolist(), tree.parent.device
    masks = ancestor_words([row.get(parents[node], -1) for node in row], device)
    steps, first_row = [], 0
    for above, nodes in pairwise(inner):
        origin = [above.index(parents[node]) for node in nodes]
        mask = masks[None, first_row : first_row + len(nodes)]
        steps.append(Step(torch.tensor(origin, device=device), mask, first_row))
        first_row += len(nodes)
    return steps
