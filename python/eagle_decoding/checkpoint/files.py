"""The files of a head directory: config.json and one weight file, read safely and written whole."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.files import write_text, write_whole


def read_fields(folder: Path) -> dict[str, Any]:
    """config.json of a head directory."""
    file = folder / "config.json"
    try:
        fields = json.loads(file.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"There is no config.json in {folder}; give the directory of a draft head.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON ({error}); fetch it again.") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file} holds a {type(fields).__name__} instead of an object; fetch it again.")
    return fields


def read_weights(file: Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a pickled state dict (read with weights_only=True): those whose name begins
    with the prefix; the others are not read."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as stored:
                return {name: stored.get_tensor(name) for name in stored.keys() if name.startswith(prefix)}  # noqa: SIM118
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=bool(prefix))
        return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); it may be cut short, fetch it again.") from None


def write_files(folder: Path, weights: str, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> None:
    """Write the tensors under the file name `weights` and the fields as config.json, each whole or not there.

    The format follows from the name's ending: safetensors, or a pickled state dict. Raises DiskFullError.
    """
    if weights.endswith(".safetensors"):
        flat = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_whole(folder / weights, lambda temporary: save_file(flat, temporary, {"format": "pt"}))
    else:
        write_whole(folder / weights, lambda temporary: torch.save(dict(tensors), temporary))
    write_text(folder / "config.json", json.dumps(fields, indent=2) + "\n")
