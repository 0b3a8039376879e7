"""How often drafts are accepted, by the probability that their method gave them, lately and in the long run."""

import math
from collections.abc import Collection

BINS = 16
TRUST = 8  # observations that a method's own probability is worth at the start
MEMORY = 400  # observations after which old ones fade
LUCK_FADES = 0.9  # a round: how fast a request's text makes itself felt
LUCK_TRUST = 4.0  # accepted drafts a request for which the long run vouches


class Calibration:
    """A running mean of acceptance for each band of draft probability, and what the last rounds made of it.

    The bands are equal in the square root of the probability. They know the method; `luck`, (accepted + LUCK_TRUST) /
    (expected + LUCK_TRUST) over the last rounds, knows when it fails on a text.
    """

    def __init__(self) -> None:
        self.rate = [((band + 0.5) / BINS) ** 2 for band in range(BINS)]
        self.weight = [TRUST] * BINS
        self.expected, self.accepted = 0.0, 0.0  # drafts a request, over the last rounds

    @property
    def luck(self) -> float:
        return (self.accepted + LUCK_TRUST) / (self.expected + LUCK_TRUST)

    def band(self, score: float) -> int:
        return min(int(BINS * math.exp(min(score, 0.0) / 2)), BINS - 1)

    def probability(self, score: float) -> float:
        """Probability that a node is accepted, in the long run. score: cumulative draft log-probability of its path"""
        return self.rate[self.band(score)]

    def begin(self) -> None:
        """A new text starts: how the last one went says half as much about it."""
        self.expected, self.accepted = self.expected / 2, self.accepted / 2

    def observe(self, drafts: Collection[tuple[float, bool]], batch: int) -> None:
        """Takes in a round: the score of every verified draft of `batch` requests, and whether it was accepted."""
        expected = sum(self.rate[self.band(score)] for score, _ in drafts)
        self.expected = LUCK_FADES * self.expected + expected / batch
        self.accepted = LUCK_FADES * self.accepted + sum(accepted for _, accepted in drafts) / batch
        for score, accepted in drafts:
            band = self.band(score)
            self.weight[band] = min(self.weight[band] + 1, MEMORY)
            self.rate[band] += (accepted - self.rate[band]) / self.weight[band]
