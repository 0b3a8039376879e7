"""Shards and the plan beside them: whole or not there, and a sentence about those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from eagle_decoding.files import write_text, write_whole
from eagle_decoding.train.errors import DataError

LONGEST_HEADER = 100_000_000  # bytes, of safetensors


def keep_plan(path: Path, plan: dict[str, Any]) -> list[str]:
    """Writes down what the files beside `path` are made from; where that was done, the names of what differs now."""
    if not path.exists():
        write_text(path, json.dumps(plan, indent=2) + "\n")
    return differing(path, plan)


def differing(path: Path, plan: dict[str, Any]) -> list[str]:
    """Names of what a plan that was written down has otherwise. Raises DataError for a damaged one."""
    try:
        written = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}), so nothing says what the files beside it belong to; delete the folder "
            f"{path.parent} and run the command that made it again."
        ) from error
    return [name for name in plan if written.get(name) != plan[name]]


def save_shard(tensors: dict[str, Tensor], path: str | Path) -> None:
    """One safetensors file, whole or not there."""
    write_whole(path, lambda temporary: save_file(tensors, temporary))


def read_shard(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a token shard. Raises DataError for a file that is missing, damaged or something else."""
    if not Path(path).is_file():
        raise DataError(f"There is no token shard {path}; name a file that prepare or regenerate wrote.")
    try:
        return load_file(path)
    except SafetensorError as error:
        if not _begins_as_shard(path):
            raise DataError(
                f"{path} is no token shard; make one with `eagle-decoding prepare` from conversations, or with "
                "`eagle-decoding regenerate` from prompts."
            ) from error
        raise DataError(
            f"The token shard {path} is damaged ({error}); delete it and run the command that made it again."
        ) from error


def _begins_as_shard(path: str | Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header of JSON, and its brace."""
    with open(path, "rb") as file:
        length, brace = file.read(8), file.read(1)
    return int.from_bytes(length, "little") <= LONGEST_HEADER and brace == b"{"


def is_whole(path: Path) -> bool:
    """Whether a shard is there and as long as its header says."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, FileNotFoundError):
        return False
