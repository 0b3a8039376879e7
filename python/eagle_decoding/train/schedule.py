"""Learning rate as a function of how much of the run is done."""

from __future__ import annotations

import math

from eagle_decoding.train.config import OptimOptions


def learning_rate(options: OptimOptions, progress: float) -> float:
    """Linear warmup, then a cosine from lr to min_lr * lr; progress runs from 0 to 1."""
    if progress < options.warmup:
        return options.lr * max(progress / options.warmup, 1e-3)
    done = min((progress - options.warmup) / max(1 - options.warmup, 1e-9), 1.0)
    return options.lr * (options.min_lr + (1 - options.min_lr) * (1 + math.cos(math.pi * done)) / 2)
