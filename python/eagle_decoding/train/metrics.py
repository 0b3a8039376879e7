"""Acceptance as the unrolled loop sees it: per step, survival by depth, and the chain length they imply."""

from __future__ import annotations

import torch
from torch import Tensor

from eagle_decoding.train.step import StepOutput


class Acceptance:
    """Counts over supervised source rows; add the steps of a pack in order, then read the figures.

    A row survives step j if the head's most probable token was the text's own token at steps 0..j. On text that the
    target decoded greedily, `tau_sim` = 1 + sum of survival is the length of a greedy chain's round, averaged over
    source rows.
    """

    def __init__(self, steps: int):
        self.rows = torch.zeros(steps)
        self.hits = torch.zeros(steps)
        self.survivors = torch.zeros(steps)
        self.loss = torch.zeros(steps)
        self.scored = torch.zeros(steps)
        self._alive: Tensor | None = None

    def start(self, total: int) -> None:
        """Begin a pack of `total` tokens: every source row is alive."""
        self._alive = torch.ones(total, dtype=torch.bool)

    def add(self, output: StepOutput) -> None:
        """Count one step of the current pack."""
        assert self._alive is not None
        step, scores = output.step, output.scores
        alive = torch.zeros_like(self._alive)
        alive[output.rows] = self._alive[output.rows] & scores.hit
        self._alive = alive
        known = output.token >= 0
        self.rows[step] += output.supervised
        self.scored[step] += output.rows.shape[0]
        self.hits[step] += scores.hit.sum()
        self.survivors[step] += alive.sum()
        self.loss[step] += scores.loss.detach()[known].sum()

    def summary(self) -> dict[str, float | list[float]]:
        """Mean loss, accuracy of the scored rows per step, survival per step and tau_sim."""
        rows, scored = self.rows.clamp(min=1), self.scored.clamp(min=1)
        survival = self.survivors / rows
        return {
            "loss": _rounded(self.loss / scored),
            "accuracy": _rounded(self.hits / scored),
            "scored": _rounded(self.scored / rows),
            "survival": _rounded(survival),
            "tau_sim": round(1 + float(survival.sum()), 4),
        }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
