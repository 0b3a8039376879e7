"""Draft trees grown on the host: token paths that share their beginnings."""

import math

import torch
from torch import Tensor

from eagle_decoding.tree import DraftTree, ancestor_words


class Trie:
    """One request's tree under a node budget, the root (the last committed token) included.

    tokens, parent, depth, scores: one entry per node, as in DraftTree
    """

    def __init__(self, root: int, num_nodes: int):
        self.num_nodes = num_nodes
        self.tokens, self.parent, self.depth, self.scores = [root], [-1], [0], [0.0]
        self.children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def full(self) -> bool:
        return len(self.tokens) >= self.num_nodes

    def child(self, node: int, token: int, score: float) -> int | None:
        """The child of `node` that holds `token`, added when it is new; None when the budget is used up.

        score: log-probability of the path to the child; of two, the higher one counts
        """
        known = self.children.get((node, token))
        if known is not None:
            self.scores[known] = max(self.scores[known], score)
            return known
        return None if self.full else self.append(node, token, score)

    def add_path(self, path: list[tuple[int, float]]) -> None:
        """Adds (token, score) below one another, from the root on, as far as the budget goes."""
        node: int | None = 0
        for token, score in path:
            if node is not None:
                node = self.child(node, token, score)

    def append(self, node: int, token: int, score: float) -> int:
        """Adds a child, which must be new."""
        new = len(self.tokens)
        self.tokens.append(token)
        self.parent.append(node)
        self.depth.append(self.depth[node] + 1)
        self.scores.append(score)
        self.children[node, token] = new
        return new


def to_draft_tree(tries: list[Trie], context_len: Tensor) -> DraftTree:
    """The requests' tries as one DraftTree, padded to the largest; padding has score -inf and matches nothing.

    context_len: [batch] int32, position of each root
    """
    num_nodes = max(len(trie) for trie in tries)
    device = context_len.device

    def ints(rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int32, device=device)

    missing = [num_nodes - len(trie) for trie in tries]
    depth = ints([trie.depth + [0] * pad for trie, pad in zip(tries, missing, strict=True)])
    parents = [trie.parent + [-1] * pad for trie, pad in zip(tries, missing, strict=True)]
    scores = [trie.scores + [-math.inf] * pad for trie, pad in zip(tries, missing, strict=True)]
    return DraftTree(
        draft_tokens=ints([trie.tokens + trie.tokens[:1] * pad for trie, pad in zip(tries, missing, strict=True)]),
        parent=ints(parents),
        depth=depth,
        position_ids=context_len[:, None] + depth,
        ancestor_mask=torch.stack([ancestor_words(row) for row in parents]).to(device),
        node_scores=torch.tensor(scores, device=device),
        max_depth=max(max(trie.depth) for trie in tries),
    )


def graft(tree: DraftTree, tries: list[Trie]) -> None:
    """Adds every path of a DraftTree to the requests' tries, whose budget must have room for it."""
    if tree.proposal is not None or (tree.node_scores is None and tree.num_nodes > 1):
        raise ValueError(
            "This method's trees have no scores to rank nodes by: hybrids and auto mode need drafts with probabilities."
        )
    if tree.node_scores is None:
        return
    rows = (tree.draft_tokens.tolist(), tree.parent.tolist(), tree.node_scores.tolist())
    for trie, tokens, parents, scores in zip(tries, *rows, strict=True):
        places: list[int | None] = [0]
        for token, parent, score in zip(tokens[1:], parents[1:], scores[1:], strict=True):
            above = places[parent] if parent >= 0 else None
            places.append(None if above is None else trie.child(above, token, score))


def best(trie: Trie, num_nodes: int) -> Trie:
    """The num_nodes best nodes of a trie as a trie of their own, in the same order; ties go to the earlier node."""
    ranked = sorted(range(1, len(trie)), key=lambda node: (-trie.scores[node], node))[: num_nodes - 1]
    kept, place = Trie(trie.tokens[0], num_nodes), {0: 0}
    for node in sorted(node for node in ranked if trie.scores[node] > -math.inf):
        place[node] = kept.append(place[trie.parent[node]], trie.tokens[node], trie.scores[node])
    return kept
