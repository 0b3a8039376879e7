"""How often drafts are accepted, by the probability that their method gave them."""

import math

BINS = 16
TRUST = 8  # observations that a method's own probability is worth at the start
MEMORY = 400  # observations after which old ones fade


class Calibration:
    """A running mean of acceptance for each band of draft probability; the bands are equal in its square root."""

    def __init__(self) -> None:
        self.rate = [((band + 0.5) / BINS) ** 2 for band in range(BINS)]
        self.weight = [TRUST] * BINS

    def band(self, score: float) -> int:
        return min(int(BINS * math.exp(min(score, 0.0) / 2)), BINS - 1)

    def probability(self, score: float) -> float:
        """Probability that a node is accepted. score: cumulative draft log-probability of its path"""
        return self.rate[self.band(score)]

    def observe(self, score: float, accepted: bool) -> None:
        band = self.band(score)
        self.weight[band] = min(self.weight[band] + 1, MEMORY)
        self.rate[band] += (accepted - self.rate[band]) / self.weight[band]
