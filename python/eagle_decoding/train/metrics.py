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

    COUNTS = ("rows", "scored", "hits", "survivors", "loss")

    def __init__(self, steps: int):
        self.totals = torch.zeros(len(self.COUNTS), steps)
        self._alive = torch.empty(0, dtype=torch.bool)

    def start(self, total: int, device: torch.device | None = None) -> None:
        """Begin a pack of `total` tokens: every source row is alive."""
        self.totals = self.totals.to(device)
        self._alive = torch.ones(total, dtype=torch.bool, device=device)

    def add(self, output: StepOutput) -> None:
        """Count one step of the current pack."""
        scores = output.scores
        alive = torch.zeros_like(self._alive)
        alive[output.rows] = self._alive[output.rows] & scores.hit
        self._alive = alive
        loss = scores.loss.detach().where(output.token >= 0, 0.0).sum()
        counts = (output.supervised, output.rows.shape[0], scores.hit.sum(), alive.sum(), loss)
        for total, count in zip(self.totals[:, output.step], counts, strict=True):
            total += count

    def summary(self) -> dict[str, float | list[float]]:
        """Mean loss, accuracy of the scored rows per step, survival per step and tau_sim."""
        rows, scored, hits, survivors, loss = self.totals.cpu()
        survival = survivors / rows.clamp(min=1)
        return {
            "loss": _rounded(loss / scored.clamp(min=1)),
            "accuracy": _rounded(hits / scored.clamp(min=1)),
            "scored": _rounded(scored / rows.clamp(min=1)),
            "survival": _rounded(survival),
            "tau_sim": round(1 + float(survival.sum()), 4),
        }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
