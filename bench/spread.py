"""What a list of samples says: its median, the middle 80 %, and whether two runs differ by more than that."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile."""

    median: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """Half of the middle 80 %, as a share of the median: 0.05 means that 5 % either way say nothing."""
        return (self.high - self.low) / 2 / self.median

    def differs_from(self, other: "Spread") -> bool:
        """True when the middle 80 % of the two do not even touch."""
        return self.low > other.high or other.low > self.high


def spread(samples: Sequence[float]) -> Spread:
    """Percentiles with linear interpolation; raises ValueError for no samples."""
    if not samples:
        raise ValueError("A spread needs at least one sample, got none: time the call first.")
    return Spread(statistics.median(samples), percentile(samples, 0.1), percentile(samples, 0.9))


def percentile(samples: Sequence[float], share: float) -> float:
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
