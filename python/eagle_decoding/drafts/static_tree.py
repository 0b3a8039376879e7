"""Draft trees of a fixed shape: each node is a rank path, filled with whatever tokens hold those ranks this round."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from eagle_decoding.config import MAX_NODES, TreeConfig
from eagle_decoding.tree import DraftTree, ancestor_words

RankPath = tuple[int, ...]  # (2, 0): the best continuation of the third-best first token; ranks count from 0

# The tree that Medusa's repository found for Vicuna-7B (FasterDecoding/Medusa, `mc_sim_7b_63`), best node first:
# any beginning of it is a tree, so a smaller budget takes the first nodes.
MEDUSA = (
    "0 00 1 01 2 000 10 02 3 03 4 04 20 05 001 5 06 6 07 010 11 7 08 002 30 09 8 9 100 020 12 003 40 21 004 005 0000 "
    "011 006 030 50 13 007 008 009 60 040 14 70 012 200 31 22 80 050 15 101 021 90 060 0001 16 070"
)
MEDUSA_PATHS: tuple[RankPath, ...] = tuple(tuple(map(int, path)) for path in MEDUSA.split())


@dataclass(frozen=True)
class Level:
    """How the nodes of one depth take their tokens from the candidates of the nodes above.

    parents:      [P] int64, nodes of the depth above that have children here, ascending
    paths:        [P, depth] int64, each parent's path, from the root to the parent itself
    parent_index: [C] int64, for each node here its parent's place in `parents`
    rank:         [C] int64, for each node here which of the parent's candidates it is
    topk:         candidates that the highest rank here asks for
    """

    parents: Tensor
    paths: Tensor
    parent_index: Tensor
    rank: Tensor
    topk: int


class StaticTree:
    """Parents, depths and ancestor masks of a set of rank paths, made once and used by every round.

    paths: every path's beginning must be among them; the root (the empty path) is implied. Nodes are numbered by depth,
           then by path.

    Raises ValueError for an empty set, a path without its parent, a negative rank, and more nodes than fit a mask.
    """

    def __init__(self, paths: Iterable[Sequence[int]], device: torch.device | str = "cpu"):
        self.paths = checked_paths(paths)
        nodes: list[RankPath] = [(), *self.paths]
        number = {path: node for node, path in enumerate(nodes)}
        parents = [-1] + [number[path[:-1]] for path in self.paths]
        self.max_depth = len(nodes[-1])
        self.parent = torch.tensor(parents, dtype=torch.int32, device=device)
        self.depth = torch.tensor([len(path) for path in nodes], dtype=torch.int32, device=device)
        self.ancestor_mask = ancestor_words(parents, device)
        firsts = [next(n for n, path in enumerate(nodes) if len(path) == d) for d in range(1, self.max_depth + 1)]
        self.levels = [
            self._level(nodes[first:last], number, device) for first, last in pairwise([*firsts, len(nodes)])
        ]

    def _level(self, paths: list[RankPath], number: dict[RankPath, int], device: torch.device | str) -> Level:
        parents = sorted({number[path[:-1]] for path in paths})
        walks = {number[path[:-1]]: [number[path[:d]] for d in range(len(path))] for path in paths}

        def indices(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        return Level(
            parents=indices(parents),
            paths=indices([walks[parent] for parent in parents]),
            parent_index=indices([parents.index(number[path[:-1]]) for path in paths]),
            rank=indices([path[-1] for path in paths]),
            topk=max(path[-1] for path in paths) + 1,
        )

    @property
    def num_nodes(self) -> int:
        return len(self.paths) + 1

    def fill(
        self,
        root_tokens: Tensor,
        context_len: Tensor,
        candidates: Callable[[int, Level, Tensor], tuple[Tensor, Tensor]],
    ) -> DraftTree:
        """The tree of one round, level by level.

        root_tokens: [batch] int32; context_len: [batch] int32, their position
        candidates:  called with the depth of the parents (0 for the root), the level, and the tokens of all nodes so
                     far [batch, nodes]; returns log-probabilities [batch, P, topk] and token ids [batch, P, topk] int32
                     of each parent's children, best first
        """
        tokens = root_tokens[:, None]
        scores = torch.zeros(tokens.shape, device=tokens.device)
        for above, level in enumerate(self.levels):
            logprobs, token_ids = candidates(above, level, tokens)
            reached = scores[:, level.parents[level.parent_index]]
            scores = torch.cat((scores, reached + logprobs[:, level.parent_index, level.rank]), 1)
            tokens = torch.cat((tokens, token_ids[:, level.parent_index, level.rank]), 1)
        batch = len(tokens)
        depth = self.depth.repeat(batch, 1)
        return DraftTree(
            draft_tokens=tokens,
            parent=self.parent.repeat(batch, 1),
            depth=depth,
            position_ids=context_len[:, None] + depth,
            ancestor_mask=self.ancestor_mask.repeat(batch, 1, 1),
            node_scores=scores,
            max_depth=self.max_depth,
        )


def checked_paths(paths: Iterable[Sequence[int]]) -> list[RankPath]:
    """The paths once each, by depth and then by rank; raises ValueError unless they form a tree that fits a mask."""
    found = {tuple(path) for path in paths} - {()}
    if not 1 <= len(found) < MAX_NODES:
        raise ValueError(
            f"A static tree has 1 to {MAX_NODES - 1} paths beside the root, got {len(found)}: change its node budget."
        )
    for path in sorted(found):
        if min(path) < 0:
            raise ValueError(f"The path {path} of a static tree has a negative rank: ranks count from 0.")
        if len(path) > 1 and path[:-1] not in found:
            raise ValueError(f"The path {path} of a static tree lacks its parent {path[:-1]}: add it.")
    return sorted(found, key=lambda path: (len(path), path))


def first_paths(published: Sequence[RankPath], tree: TreeConfig) -> list[RankPath]:
    """The first nodes of a published tree within a depth, a number of children and a node budget."""
    fitting = [path for path in published if len(path) <= tree.max_depth and max(path) < tree.topk]
    return fitting[: tree.num_nodes - 1]


def best_paths(rank_accuracy: Sequence[Sequence[float]], tree: TreeConfig) -> list[RankPath]:
    """The tree that accepts most drafts within a depth, a number of children and a node budget.

    rank_accuracy[d][r]: how often the candidate of rank r at depth d is the right one when the path above it was.

    A node is reached and right with the product of the accuracies on its path; the expected accepted length is the sum
    over nodes. Adding the best reachable node again and again maximises it, because no node is worth more than its
    parent (the construction of Medusa, Cai et al. 2024, arXiv 2401.10774, section 3.3.1). Nodes that were never right
    are left out.
    """
    accuracy = [list(ranks[: tree.topk]) for ranks in rank_accuracy[: tree.max_depth]]
    reachable: list[tuple[float, RankPath]] = [(-value, (rank,)) for rank, value in enumerate(accuracy[0])]
    heapq.heapify(reachable)
    paths: list[RankPath] = []
    while reachable and len(paths) < tree.num_nodes - 1 and (reachable[0][0] < 0 or not paths):
        negative, path = heapq.heappop(reachable)
        paths.append(path)
        if len(path) < len(accuracy):
            for rank, value in enumerate(accuracy[len(path)]):
                heapq.heappush(reachable, (negative * value, (*path, rank)))
    return paths
