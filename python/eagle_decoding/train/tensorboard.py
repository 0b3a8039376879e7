"""The figures of a run for TensorBoard, beside log.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eagle_decoding.train.config import ConfigError

SCALARS = ("tau_sim", "lr", "grad_norm", "tokens")
BY_DEPTH = ("loss", "accuracy", "survival", "scored")


class TensorBoardLog:
    """Reports as TensorBoard's scalars: `train/tau_sim`, `eval/survival/3` and so on, by optimiser step."""

    def __init__(self, folder: str | Path):
        """Raises ConfigError where the package tensorboard is missing."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "log.tensorboard needs the package tensorboard: run `pip install tensorboard`, or leave it false; "
                "log.jsonl holds the same figures."
            ) from error
        self._writer = SummaryWriter(str(folder))

    def add(self, report: dict[str, Any]) -> None:
        """Add one report of the training loop."""
        kind, step = report["kind"], report["step"]
        for name in SCALARS:
            if name in report:
                self._writer.add_scalar(f"{kind}/{name}", report[name], step)
        for name in BY_DEPTH:
            for depth, value in enumerate(report[name], 1):
                self._writer.add_scalar(f"{kind}/{name}/{depth}", value, step)

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()
