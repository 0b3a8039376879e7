"""What lies beside a training run's shards: the plan of what they are made from, and the shards themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from eagle_decoding.files import write_text, write_whole


def keep_plan(path: Path, plan: dict[str, Any]) -> list[str]:
    """Writes down what the files beside `path` are made from; where that was done, the names of what differs now."""
    if not path.exists():
        write_text(path, json.dumps(plan, indent=2) + "\n")
    other = json.loads(path.read_text())
    return [name for name in plan if other.get(name) != plan[name]]


def save_shard(tensors: dict[str, Tensor], path: str | Path) -> None:
    """One safetensors file, whole or not there."""
    write_whole(path, lambda temporary: save_file(tensors, temporary))
