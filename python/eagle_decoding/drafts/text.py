"""Drafting from the text alone: each request keeps an index of its prompt and output, which grows the trees."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from eagle_decoding.drafts.base import Commit
from eagle_decoding.drafts.trie import Trie, to_draft_tree
from eagle_decoding.sampling import SamplingParams
from eagle_decoding.tree import DraftTree


class TextIndex(Protocol):
    """What a method remembers of one request's text."""

    def append(self, token: int) -> None:
        """Takes in the next token of the text."""

    def grow(self, root: int) -> Trie:
        """A tree of likely continuations on the text's last token, the root."""


class TextDraft:
    """Drafts with one index per request; needs no weights and none of the target's features.

    new_index: makes the empty index of a request
    """

    feature_layers: tuple[int, ...] = ()

    def __init__(self, new_index: Callable[[], TextIndex]):
        self.new_index = new_index

    def start(self, prompt: Tensor, lengths: Tensor, params: SamplingParams) -> None:
        self.history = History(prompt, lengths)
        self.indexes = [self.new_index() for _ in range(len(prompt))]
        for index, tokens in zip(self.indexes, self.history.tokens, strict=True):
            for token in tokens:
                index.append(token)

    def extend(self, commit: Commit) -> None:
        for index, tokens in zip(self.indexes, self.history.extend(commit), strict=True):
            for token in tokens:
                index.append(token)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        roots = root_tokens.tolist()
        tries = [index.grow(root) for index, root in zip(self.indexes, roots, strict=True)]
        return to_draft_tree(tries, context_len)


class History:
    """The tokens of each request on the host: its prompt and what was committed since."""

    def __init__(self, prompt: Tensor, lengths: Tensor):
        self.tokens = [row[:n] for row, n in zip(prompt.tolist(), lengths.tolist(), strict=True)]

    def extend(self, commit: Commit) -> list[list[int]]:
        """Takes in a commit; returns each request's tokens that are new with it."""
        new = []
        for tokens, row, start, n in zip(
            self.tokens, commit.tokens.tolist(), commit.context_len.tolist(), commit.num_rows.tolist(), strict=True
        ):
            new.append(row[len(tokens) - start - 1 : n])  # row i holds the token at position start + i + 1
            tokens += new[-1]
        return new
