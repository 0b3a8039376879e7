"""Lookahead decoding: Jacobi guesses in the target's own forward feed an n-gram pool (Fu et al., arXiv 2402.02057)."""

import random
from collections import OrderedDict
from dataclasses import replace

from torch import Tensor

from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import Commit
from eagle_decoding.drafts.text import History
from eagle_decoding.drafts.trie import Trie, to_draft_tree
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree

TREE = TreeConfig(num_nodes=57, max_depth=4, topk=7)  # 5-grams, window 7, 7 guesses: the authors' choice for 7B models


class LookaheadDraft:
    """Both branches of lookahead decoding as one draft tree.

    The window holds max_depth levels of topk guesses each. Guess i of level j stands at depth 1 + i + j: the first
    level is a chain below the root, and each of its tokens starts a chain of the later levels' tokens in its column. So
    its rows need no mask of their own, and what the target chooses after the last level is the next level. A column
    and that choice make an n-gram for the pool; pooled n-grams that begin with the root's token are the guesses to
    verify.

    tree: max_depth + 1 is the length of an n-gram, topk the width of the window and the most guesses, num_nodes the
          bound on everything
    """

    feature_layers: tuple[int, ...] = ()

    def __init__(self, tree: TreeConfig):
        if tree.num_nodes <= (tree.topk + 1) * tree.max_depth:
            raise ValueError(
                f"Lookahead with a window of {tree.topk} and {tree.max_depth} levels needs more than "
                f"{(tree.topk + 1) * tree.max_depth} nodes, got {tree.num_nodes}: raise num_nodes or lower topk."
            )
        self.tree = tree

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        self.history = History(prompt, lengths)
        self.requests = [Window(self.tree, tokens) for tokens in self.history.tokens]
        self.verified: DraftTree | None = None

    def extend(self, commit: Commit) -> None:
        self.history.extend(commit)
        if self.verified is None or self.verified.target_tokens is None:
            return
        for request, choices, emitted in zip(
            self.requests, self.verified.target_tokens.tolist(), commit.num_rows.tolist(), strict=True
        ):
            request.advance(choices, emitted)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        tries = [Trie(root, self.tree.num_nodes) for root in root_tokens.tolist()]
        for request, trie in zip(self.requests, tries, strict=True):
            request.grow(trie)
        self.verified = replace(to_draft_tree(tries, context_len), node_scores=None)
        return self.verified


class Window:
    """One request's guesses and n-gram pool.

    levels: max_depth rows of topk tokens, the oldest first
    pool:   first token -> the rest of n-grams that began with it, the latest last
    nodes:  tree nodes of the last level in the tree that was grown last
    """

    def __init__(self, tree: TreeConfig, text: list[int]):
        self.tree, self.text, self.random = tree, text, random.Random(0)
        self.levels = [[self.any_token() for _ in range(tree.topk)] for _ in range(tree.max_depth)]
        self.pool: dict[int, OrderedDict[tuple[int, ...], None]] = {}
        self.nodes: list[int] = []

    def any_token(self) -> int:
        return self.random.choice(self.text)

    def grow(self, trie: Trie) -> None:
        """Adds the window, then the latest guesses that the budget has room for."""
        self.nodes, first = [], 0
        for column in zip(*self.levels, strict=True):
            first = node = self.add(trie, first, column[0])
            for token in column[1:]:
                node = self.add(trie, node, token)
            self.nodes.append(node)
        for guess in reversed(self.pool.get(trie.tokens[0], ())):
            trie.add_path([(token, 0.0) for token in guess])

    def add(self, trie: Trie, node: int, token: int) -> int:
        child = trie.child(node, token, 0.0)
        assert child is not None, "the budget holds the window"
        return child

    def advance(self, choices: list[int], emitted: int) -> None:
        """Pools the n-grams that are complete, adds the target's choices as a level, and follows the text.

        choices: the target's token after each node, -1 where none was chosen
        emitted: tokens that the round emitted: so far do the guesses move on
        """
        newest = [choices[node] for node in self.nodes]
        for column, last in zip(zip(*self.levels, strict=True), newest, strict=True):
            if last >= 0:
                self.remember(column[0], (*column[1:], last))
        newest = [token if token >= 0 else self.any_token() for token in newest]
        passed = min(emitted - 1, self.tree.topk)  # dropping the oldest level moves on by one already
        self.levels = [
            level[passed:] + [self.any_token() for _ in range(passed)] for level in (*self.levels[1:], newest)
        ]

    def remember(self, first: int, rest: tuple[int, ...]) -> None:
        known = self.pool.setdefault(first, OrderedDict())
        known[rest] = None
        known.move_to_end(rest)
        if len(known) > self.tree.topk:
            known.popitem(last=False)
