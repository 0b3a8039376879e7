"""Write an EAGLE-3 head so that SafeAILab, vLLM, SGLang and this project read it, and prove that it came through."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from eagle_decoding.checkpoint.config import HeadConfig
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fields import fields_from_config
from eagle_decoding.checkpoint.names import portable_name
from eagle_decoding.checkpoint.read import check_shapes, read_head


def write_head(path: str | Path, config: HeadConfig, tensors: dict[str, Tensor], format: str = "portable") -> None:
    """Write config.json and model.safetensors into a directory, each to a temporary name first, then reload and
    compare.

    config: the head's shape and conventions. tensors: normalised names as in `HeadConfig.tensor_shapes`; `d2t` as
        offsets.
    format: "portable" (flat EAGLE-3: `midlayer.*` names, `d2t` and `t2d` for a reduced vocabulary, no embeddings unless
        head and target differ in width).

    Raises CheckpointError if a tensor is missing, unexpected or misshapen, or if what was written reads back
    differently.
    """
    if format != "portable":
        raise CheckpointError(f"The export format is {format!r}; known: 'portable'.")
    folder = Path(path)
    check_shapes(folder, tensors, config.tensor_shapes())
    stored = {portable_name(name): tensor.detach().contiguous() for name, tensor in tensors.items()}
    if config.has_reduced_vocab:
        stored["t2d"] = torch.zeros(config.vocab_size, dtype=torch.bool)
        stored["t2d"][tensors["d2t"] + torch.arange(config.draft_vocab_size)] = True
    fields = fields_from_config(config, str(tensors["fc.weight"].dtype).removeprefix("torch."))
    folder.mkdir(parents=True, exist_ok=True)
    weights, description = folder / "model.safetensors", folder / "config.json"
    save_file(stored, weights.with_suffix(".tmp"), {"format": "pt"})
    description.with_suffix(".tmp").write_text(json.dumps(fields, indent=2) + "\n")
    for file in (weights, description):
        os.replace(file.with_suffix(".tmp"), file)
    _check_written(folder, config, tensors)


def _check_written(folder: Path, config: HeadConfig, tensors: dict[str, Tensor]) -> None:
    head = read_head(folder)
    if head.config != config:
        raise CheckpointError(f"The configuration written to {folder} reads back as {head.config}, not as {config}.")
    changed = [
        name for name in tensors if name not in head.tensors or not torch.equal(head.tensors[name], tensors[name])
    ]
    if changed:
        raise CheckpointError(f"Tensors written to {folder} read back differently: {', '.join(changed)}.")
