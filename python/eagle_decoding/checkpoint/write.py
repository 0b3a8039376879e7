"""Write a draft head as an engine reads it, and prove that it came through before anything else is replaced."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from eagle_decoding.checkpoint.config import HeadConfig, LayerConfig, default_aux_layer_ids
from eagle_decoding.checkpoint.eagle1 import Eagle1Config
from eagle_decoding.checkpoint.eagle1_formats import EAGLE1_FORMATS, eagle1_layout
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.files import write_files
from eagle_decoding.checkpoint.formats import FORMATS, Format, TargetFacts, check_expressible
from eagle_decoding.checkpoint.read import check_shapes, read_head
from eagle_decoding.files import staged_folder


def write_head(
    path: str | Path,
    config: HeadConfig | Eagle1Config,
    tensors: dict[str, Tensor],
    format: str = "portable",
    target: TargetFacts | None = None,
) -> None:
    """Write a head directory: into a temporary one first, which is read back and compared, then renamed.

    config: the head's shape and conventions. tensors: normalised names as in `config.tensor_shapes()`; `d2t` as
        offsets.
    format: a key of `FORMATS` for EAGLE-3. All hold `d2t` and `t2d` for a reduced vocabulary, and embeddings only if
        head and target differ in width or the format wants the target's. For EAGLE-1 a key of `EAGLE1_FORMATS`; see
        `eagle1_layout`. target: what some formats say about it.

    Layer ids that are the target's default three are left out: every engine knows those. Other files of an earlier
    directory at `path`, such as a README, stay. Raises CheckpointError if the format cannot express the head, if a
    tensor is missing, unexpected or misshapen, or if what was written reads back differently; DiskFullError.
    """
    folder = Path(path)
    check_shapes(folder, tensors, config.tensor_shapes())
    if isinstance(config, Eagle1Config):
        config, tensors = eagle1_layout(config, tensors, format)
    elif target and config.aux_layer_ids == default_aux_layer_ids(target.num_layers):
        config = replace(config, aux_layer_ids=None)
    kind = check_expressible(EAGLE1_FORMATS if isinstance(config, Eagle1Config) else FORMATS, format, config, target)
    _check_replaceable(folder)
    with staged_folder(folder) as temporary:
        fields = kind.fields(config, str(tensors["fc.weight"].dtype).removeprefix("torch."), target)
        write_files(temporary, kind.weights, _stored(kind, config, tensors, target), fields)
        _check_written(temporary, config, tensors)
        _replace(folder, temporary)


def _stored(
    kind: Format, config: HeadConfig | Eagle1Config, tensors: dict[str, Tensor], target: TargetFacts | None
) -> dict[str, Tensor]:
    """The tensors of the file under the names of its format."""
    stored = {kind.tensor_name(name): tensor.detach().contiguous() for name, tensor in tensors.items()}
    if config.has_reduced_vocab:
        stored["t2d"] = torch.zeros(config.vocab_size, dtype=torch.bool)
        stored["t2d"][tensors["d2t"] + torch.arange(config.draft_vocab_size)] = True
    if kind.embedded and target is not None and "embed_tokens.weight" not in stored:
        stored["embed_tokens.weight"] = target.embed_tokens.detach().to(tensors["fc.weight"].dtype).contiguous()
    return stored


def _check_written(folder: Path, config: LayerConfig, tensors: dict[str, Tensor]) -> None:
    head = read_head(folder)
    if head.config != config:
        raise CheckpointError(f"The configuration written to {folder} reads back as {head.config}, not as {config}.")
    changed = [
        name for name in tensors if name not in head.tensors or not torch.equal(head.tensors[name], tensors[name])
    ]
    if changed:
        raise CheckpointError(f"Tensors written to {folder} read back differently: {', '.join(changed)}.")


def _check_replaceable(folder: Path) -> None:
    """Only an empty directory or an earlier head gives way to a new one."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        fields = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        fields = {}
    if not {"draft_vocab_size", "eagle_version"} & fields.keys():
        raise CheckpointError(f"{folder} exists and is no draft head; give a new directory to write to.")


def _replace(folder: Path, temporary: Path) -> None:
    """Puts the new directory in the place of an earlier one, whose other files move along."""
    if not folder.exists():
        os.replace(temporary, folder)
        return
    for file in folder.iterdir():
        if file.suffix not in (".safetensors", ".bin") and file.name != "config.json":
            (shutil.copytree if file.is_dir() else shutil.copy2)(file, temporary / file.name)
    old = folder.with_name(folder.name + ".old")
    os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old)
