"""Training checkpoints: written to a temporary name and renamed, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

KEEP = 2


@dataclass(frozen=True)
class TrainState:
    """One checkpoint: the head's tensors, the optimiser's per parameter index, and how far the run is."""

    head: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    progress: dict[str, Any]

    def restore(self, head: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Load both and return the progress."""
        head.load_state_dict(self.head)
        optimizer.load_state_dict({"state": self.optimizer, "param_groups": optimizer.state_dict()["param_groups"]})
        return dict(self.progress)


def save_state(folder: Path, head: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> Path:
    """Write head, optimiser and progress as `step-<n>.safetensors`; all but the newest two are removed."""
    tensors = {f"head.{name}": value for name, value in head.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{progress['step']:08d}.safetensors"
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {"progress": json.dumps(progress)})
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for old in _checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def newest_state(folder: Path) -> TrainState | None:
    """The newest whole checkpoint, or None; a torn file is skipped and the one before it is used."""
    for path in reversed(_checkpoints(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                progress = json.loads(file.metadata()["progress"])
        except (SafetensorError, OSError):
            continue
        optimizer: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                optimizer.setdefault(int(index), {})[name] = value
        head = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        return TrainState(head, optimizer, progress)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
