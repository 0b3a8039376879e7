"""Files that are whole or not there: written under a temporary name, then renamed; a full disk is one sentence."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from eagle_decoding.train.data import DataError


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary path) and renames what it wrote to `path`; folders are made as needed.

    Raises DataError when the disk is full; then, as after any other failure, nothing of the file stays.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise DataError(f"The disk is full: {path} was not written; make room and run the command again.") from None
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an OSError, or safetensors' own error around one, says that no space is left."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC).lower() in str(error).lower()


def keep_plan(path: Path, plan: dict[str, Any]) -> list[str]:
    """Writes down what the files beside `path` are made from; where that was done, the names of what differs now."""
    if not path.exists():
        write_whole(path, lambda temporary: temporary.write_text(json.dumps(plan, indent=2) + "\n"))
    other = json.loads(path.read_text())
    return [name for name in plan if other.get(name) != plan[name]]


def save_shard(tensors: dict[str, Tensor], path: str | Path) -> None:
    """One safetensors file, whole or not there."""
    write_whole(path, lambda temporary: save_file(tensors, temporary))
