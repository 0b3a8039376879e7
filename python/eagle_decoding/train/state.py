"""Training checkpoints: written to a temporary name and renamed, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from eagle_decoding.files import DiskFullError, write_whole
from eagle_decoding.train.distributed import share_like, whole

KEEP = 2


class StateError(ValueError):
    """Checkpoints that cannot be read or written."""


@dataclass(frozen=True)
class TrainState:
    """One checkpoint: the head's tensors, the optimiser's per parameter index, and how far the run is."""

    head: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    progress: dict[str, Any]

    @classmethod
    def take(cls, head: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> TrainState:
        """The state of a run as it is, whole tensors even where processes share them; called by all of them."""
        tensors = {name: whole(value).cpu() for name, value in head.state_dict().items()}
        entries = {
            index: {name: whole(value).cpu() for name, value in state.items()}
            for index, state in optimizer.state_dict()["state"].items()
        }
        return cls(tensors, entries, dict(progress))

    def restore(self, head: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Load both and return the progress."""
        own = head.state_dict()
        head.load_state_dict(
            {name: share_like(value.to(own[name].device), own[name]) for name, value in self.head.items()}
        )
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        entries = {
            index: {
                name: share_like(value.to(parameters[index].device), parameters[index]) for name, value in state.items()
            }
            for index, state in self.optimizer.items()
        }
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
        return dict(self.progress)


def save_state(folder: Path, state: TrainState) -> Path:
    """Write a checkpoint as `step-<n>.safetensors`; all but the newest two are removed.

    Raises StateError, with the earlier checkpoints untouched, when the disk does not take it.
    """
    tensors = {f"head.{name}": value.contiguous() for name, value in state.head.items()}
    for index, entries in state.optimizer.items():
        tensors |= {f"optimizer.{index}.{name}": value.contiguous() for name, value in entries.items()}
    path = folder / f"step-{state.progress['step']:08d}.safetensors"
    facts = {"progress": json.dumps(state.progress), "checksum": str(_checksum(tensors))}
    try:
        write_whole(path, lambda temporary: save_file(tensors, temporary, facts))
    except (SafetensorError, OSError) as error:
        kept, reason = _checkpoints(folder), "the disk is full" if isinstance(error, DiskFullError) else error
        raise StateError(
            f"The checkpoint {path} could not be written ({reason}); "
            + (f"{kept[-1].name} is the newest whole one." if kept else "there is none before it.")
        ) from error
    for old in _checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def newest_state(folder: Path, note: Callable[[str], None] = lambda sentence: None) -> TrainState | None:
    """The newest whole checkpoint, or None where there is no checkpoint at all.

    A torn or altered file is skipped, the one before it is used, and `note` gets a sentence about that. Raises
    StateError if there are checkpoints but none is whole.
    """
    paths = _checkpoints(folder)
    for path in reversed(paths):
        try:
            return _read(path)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            note(f"The checkpoint {path} is damaged ({error}) and is left out.")
    if paths:
        raise StateError(
            f"There is no whole checkpoint in {folder}: all {len(paths)} are damaged; remove them to restart."
        )
    return None


def sweep(folder: Path) -> None:
    """Remove what a write that was cut off left behind."""
    for temporary in folder.glob("step-*.tmp"):
        temporary.unlink()


def _read(path: Path) -> TrainState:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    if int(facts["checksum"]) != _checksum(tensors):
        raise ValueError("its bytes do not add up to its checksum")
    optimizer: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            optimizer.setdefault(int(index), {})[name] = value
    head = {key.removeprefix("head."): value for key, value in tensors.items() if key.startswith("head.")}
    return TrainState(head, optimizer, json.loads(facts["progress"]))


def _checksum(tensors: dict[str, Tensor]) -> int:
    """CRC-32 of all tensors' bytes in the order of their names."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
