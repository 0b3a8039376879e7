"""Prompt lookup decoding (Saxena 2023): what followed the last few tokens when the text had them before."""

import math

from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.trie import Trie, best

LONGEST_MATCH = 3  # tokens
TREE = TreeConfig(num_nodes=8, max_depth=7, topk=3)


class NgramIndex:
    """Where each n-gram of a text ends, for n up to LONGEST_MATCH.

    tree: num_nodes is the budget, max_depth the longest continuation, topk the matches that share the tree
    """

    def __init__(self, tree: TreeConfig):
        self.tree = tree
        self.tokens: list[int] = []
        self.ends: dict[tuple[int, ...], list[int]] = {}

    def append(self, token: int) -> None:
        self.tokens.append(token)
        for n in range(1, LONGEST_MATCH + 1):
            if n <= len(self.tokens):
                self.ends.setdefault(tuple(self.tokens[-n:]), []).append(len(self.tokens))

    def grow(self, root: int) -> Trie:
        """The best of what followed the matches; one of n tokens is taken to hold for d more with n / (n + d + 1)."""
        followed = Trie(root, 1 + self.tree.topk * self.tree.max_depth)
        for end, matched in self.matches():
            following = enumerate(self.tokens[end : end + self.tree.max_depth], start=1)
            followed.add_path([(token, math.log(matched / (matched + depth + 1))) for depth, token in following])
        return best(followed, self.tree.num_nodes)

    def matches(self) -> list[tuple[int, int]]:
        """(end, tokens matched) of the earlier matches to follow: the longest first, of these the latest."""
        found: dict[int, int] = {}
        for n in range(min(LONGEST_MATCH, len(self.tokens)), 0, -1):
            ends = self.ends[tuple(self.tokens[-n:])]
            for end in reversed(ends[:-1]):
                if len(found) == self.tree.topk:
                    return list(found.items())
                found.setdefault(end, n)
        return list(found.items())
