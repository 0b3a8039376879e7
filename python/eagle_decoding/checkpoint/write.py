"""Write a draft head so that SafeAILab, vLLM, SGLang and this project read it, and prove that it came through."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from eagle_decoding.checkpoint.config import HeadConfig, LayerConfig
from eagle_decoding.checkpoint.eagle1 import Eagle1Config, eagle1_layout, fields_from_eagle1
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fields import fields_from_config
from eagle_decoding.checkpoint.files import write_files
from eagle_decoding.checkpoint.names import portable_name
from eagle_decoding.checkpoint.read import check_shapes, read_head


def write_head(
    path: str | Path,
    config: HeadConfig | Eagle1Config,
    tensors: dict[str, Tensor],
    format: str = "portable",
    embed_tokens: Tensor | None = None,
) -> None:
    """Write config.json and model.safetensors into a directory, each to a temporary name first, then reload and
    compare.

    config: the head's shape and conventions. tensors: normalised names as in `config.tensor_shapes()`; `d2t` as
        offsets.
    format: "portable": for EAGLE-3 one directory for every engine (flat, `midlayer.*` names, `d2t` and `t2d` for a
        reduced vocabulary, no embeddings unless head and target differ in width); for EAGLE-1 the smallest that this
        project reads. EAGLE-1 has no directory for every engine: see `eagle1_layout`.
    embed_tokens [V, H]: the target's embeddings, which the engines' EAGLE-1 formats store.

    Raises CheckpointError if a tensor is missing, unexpected or misshapen, if the format cannot hold the head, or if
    what was written reads back differently.
    """
    folder = Path(path)
    check_shapes(folder, tensors, config.tensor_shapes())
    dtype = str(tensors["fc.weight"].dtype).removeprefix("torch.")
    if isinstance(config, Eagle1Config):
        config, tensors = eagle1_layout(config, tensors, format)
        stored, fields = dict(tensors), fields_from_eagle1(config, dtype, format)
        if format != "portable":
            stored["embed_tokens.weight"] = _embeddings(embed_tokens, config, format).to(tensors["fc.weight"].dtype)
    else:
        if format != "portable":
            raise CheckpointError(f"The export format is {format!r}; known for EAGLE-3: 'portable'.")
        stored, fields = _eagle3_layout(config, tensors), fields_from_config(config, dtype)
    write_files(folder, "model.safetensors", {name: tensor.detach() for name, tensor in stored.items()}, fields)
    _check_written(folder, config, tensors)


def _eagle3_layout(config: HeadConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    stored = {portable_name(name): tensor for name, tensor in tensors.items()}
    if config.has_reduced_vocab:
        stored["t2d"] = torch.zeros(config.vocab_size, dtype=torch.bool)
        stored["t2d"][tensors["d2t"] + torch.arange(config.draft_vocab_size)] = True
    return stored


def _embeddings(embed_tokens: Tensor | None, config: Eagle1Config, format: str) -> Tensor:
    shape = (config.vocab_size, config.hidden_size)
    if embed_tokens is None or tuple(embed_tokens.shape) != shape:
        given = None if embed_tokens is None else list(embed_tokens.shape)
        raise CheckpointError(
            f"The format {format!r} stores the target's embeddings, of shape {list(shape)}; given: {given}."
        )
    return embed_tokens


def _check_written(folder: Path, config: LayerConfig, tensors: dict[str, Tensor]) -> None:
    head = read_head(folder)
    if head.config != config:
        raise CheckpointError(f"The configuration written to {folder} reads back as {head.config}, not as {config}.")
    changed = [
        name for name in tensors if name not in head.tensors or not torch.equal(head.tensors[name], tensors[name])
    ]
    if changed:
        raise CheckpointError(f"Tensors written to {folder} read back differently: {', '.join(changed)}.")
