"""Every round of a decode, kept: the drafted tree, the path that was accepted, and what that says by depth and rank."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eagle_decoding.drafts import Commit
from eagle_decoding.stats import Stats
from eagle_decoding.tree import DraftTree


@dataclass(frozen=True)
class LoggedRound:
    """One request's round.

    tokens, parents: of every node, the root first; padding is left out
    scores:          cumulative log-probability of each node under the draft, None where the draft gives none
    position:        of the root in the text
    path:            accepted nodes in order, the root first
    bonus_token:     what the target chose after the last of them
    """

    tokens: list[int]
    parents: list[int]
    scores: list[float] | None
    position: int
    path: list[int]
    bonus_token: int

    def children(self, node: int) -> list[int]:
        """In the draft's order, the likeliest first."""
        return [child for child, parent in enumerate(self.parents) if parent == node and child > 0]


class RoundLog:
    """A draft that notes the rounds of the draft it wraps, for one request at a time.

    What a round accepted is read off the next call of `extend`; `finish` reads the last one off the statistics.
    """

    def __init__(self, draft: Any):
        self.draft = draft
        self.rounds: list[LoggedRound] = []
        self._pending: tuple[DraftTree, int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.draft, name)

    def start(self, prompt: Tensor, *args: Any) -> None:
        if len(prompt) != 1:
            raise ValueError(f"Rounds are logged for one request at a time, got a batch of {len(prompt)}.")
        self.rounds, self._pending = [], None
        self.draft.start(prompt, *args)

    def extend(self, commit: Commit) -> None:
        self._settle(commit.tokens[0, : int(commit.num_rows[0])].tolist())
        self.draft.extend(commit)

    def propose(self, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
        tree = self.draft.propose(root_tokens, context_len)
        self._pending = tree, int(context_len[0])
        return tree

    def finish(self, stats: Stats) -> list[LoggedRound]:
        """All rounds of the call that `stats` belongs to."""
        last = stats.last_round
        if last is not None and self._pending is not None:
            path = last.accept_index[0, 1 : int(last.accept_length[0]) + 1].long()
            self._settle([*last.tree.draft_tokens[0, path].tolist(), int(last.bonus_token[0])])
        return self.rounds

    def _settle(self, emitted: list[int]) -> None:
        """Turns the pending tree into a logged round, given the tokens the round emitted."""
        if self._pending is None:
            return
        tree, position = self._pending
        self._pending = None
        parents = tree.parent[0].tolist()
        kept = [0, *(node for node, parent in enumerate(parents) if parent >= 0)]
        tokens = tree.draft_tokens[0, kept].tolist()
        scores = None if tree.node_scores is None else tree.node_scores[0, kept].tolist()
        path = [0]
        for token in emitted[:-1]:
            path.append(next(n for n in kept if parents[n] == path[-1] and tokens[n] == token and n > 0))
        self.rounds.append(LoggedRound(tokens, parents[: len(kept)], scores, position, path, emitted[-1]))


@dataclass
class Acceptance:
    """Counts over rounds, by depth (1 is below the root) and by rank among siblings (1 is the draft's favourite).

    rounds:   target forwards over a tree
    tested:   entry d-1: rounds whose accepted path reached depth d-1 and had children there
    accepted: entry d-1: by rank, rounds that accepted a child of that rank at depth d
    """

    rounds: int = 0
    tested: list[int] = field(default_factory=list)
    accepted: list[dict[int, int]] = field(default_factory=list)

    def add(self, rounds: Iterable[LoggedRound]) -> "Acceptance":
        for logged in rounds:
            self.rounds += 1
            for depth, node in enumerate(logged.path):
                children = logged.children(node)
                if not children:
                    break
                if depth == len(self.tested):
                    self.tested.append(0)
                    self.accepted.append({})
                self.tested[depth] += 1
                if depth + 1 < len(logged.path):
                    rank = children.index(logged.path[depth + 1]) + 1
                    self.accepted[depth][rank] = self.accepted[depth].get(rank, 0) + 1
        return self

    @property
    def by_depth(self) -> list[int]:
        """Rounds that accepted a token at each depth."""
        return [sum(ranks.values()) for ranks in self.accepted]
