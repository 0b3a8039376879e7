"""What a decoding run did: rounds, tokens, acceptance by depth and time by phase."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from eagle_decoding.tree import DraftTree

ONCE = ("prefill", "capture")  # phases that do not belong to the rounds


class Round(NamedTuple):
    """A verified tree: the path that was accepted (as `verify_tree` returns it) and the token that follows it."""

    tree: DraftTree
    accept_index: Tensor
    accept_length: Tensor
    bonus_token: Tensor


@dataclass
class Stats:
    """Counters of one `generate` call.

    rounds:            target forwards over a tree, counted per request; the prompt's forward is not one
    tokens:            tokens returned, after trimming
    accepted:          drafts on the accepted paths, the sum of accepted_by_depth
    accepted_by_depth: entry d-1 is the number of rounds whose accepted path reached depth d
    seconds:           wall time by phase: prefill, then draft, verify, sample, commit, output; rounds that run as a
                       graph have capture, launch, wait, output
    last_round:        the tree that was verified last, None when the first token ended the text; as a graph a round may
                       have run after the text's end
    """

    rounds: int = 0
    tokens: int = 0
    accepted: int = 0
    accepted_by_depth: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last_round: Round | None = None

    @property
    def tokens_per_round(self) -> float:
        """The papers' tau: accepted drafts + 1, averaged over rounds; 0 before the first round."""
        return (self.accepted + self.rounds) / self.rounds if self.rounds else 0.0

    @property
    def decode_seconds(self) -> float:
        """Wall time without what a call does once: the prompt's forward and the capture of a graph."""
        return sum(seconds for phase, seconds in self.seconds.items() if phase not in ONCE)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def record_round(self, accept_length: int) -> None:
        """Counts one request's round."""
        self.rounds += 1
        self.accepted += accept_length
        self.accepted_by_depth.extend([0] * (accept_length - len(self.accepted_by_depth)))
        for depth in range(accept_length):
            self.accepted_by_depth[depth] += 1
