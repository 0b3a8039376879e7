"""Write Medusa or Hydra heads, small or as their repositories store them, and prove that they came through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from eagle_decoding.checkpoint.depth_heads import DepthHeads, DepthHeadsConfig
from eagle_decoding.checkpoint.depth_layouts import FILES, stored_names
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.files import write_files
from eagle_decoding.checkpoint.read import check_shapes
from eagle_decoding.checkpoint.read_depth_heads import read_depth_heads

FORMATS = ("portable", "published")


def write_depth_heads(
    path: str | Path, heads: DepthHeads, target: Any, format: str = "portable", lm_head: Tensor | None = None
) -> None:
    """Write config.json and the weight file into a directory, each to a temporary name first, then reload and compare.

    target: the target's transformers configuration.
    format: "portable" keeps what was trained and, for a reduced draft vocabulary, d2t; projections that are the
        target's rows are taken from the target again. "published" is what the methods' own repositories read: the
        whole vocabulary, a projection and every layer stored for every head.
    lm_head [V, H]: the target's, which "published" needs for heads without projections of their own.

    Raises CheckpointError for tensors that do not fit the configuration, and if what was written reads back changed.
    """
    if format not in FORMATS:
        raise CheckpointError(f"The export format is {format!r}; heads of {heads.config.method} know {FORMATS}.")
    folder = Path(path)
    check_shapes(folder, heads.tensors, heads.config.tensor_shapes())
    if format == "published":
        heads = published(heads, lm_head)
    config, stored = heads.config, dict[str, Tensor]()
    kept: set[str] = set()
    for name, here in stored_names(config).items():
        if format == "published" or here not in kept:
            stored[name] = heads.tensors[here].detach().clone()
            kept.add(here)
    as_published = int(format == "published" and config.method == "hydra")  # Hydra's own loader knows .pt alone
    fields = _fields(config)
    if format == "published":
        fields["base_model_name_or_path"] = target.name_or_path
    write_files(folder, FILES[config.method][as_published], stored, fields)
    _check_written(folder, heads, target)


def published(heads: DepthHeads, lm_head: Tensor | None) -> DepthHeads:
    """The same heads with everything spelt out that published layouts spell out: their logits over the whole
    vocabulary, for Hydra also biases and the projection of the residual, which for these heads selects the state."""
    config, hydra = heads.config, heads.config.reads_path
    if config.own_lm_head and config.has_reduced_vocab:
        raise CheckpointError(
            f"The heads have projections to {config.draft_vocab_size} of {config.vocab_size} tokens of their own; "
            "published layouts hold the whole vocabulary, export them as 'portable'."
        )
    if lm_head is None and not config.own_lm_head:
        raise CheckpointError("The heads use the target's lm_head; the published layout needs it to be given.")
    shape = replace(
        config,
        draft_vocab_size=config.vocab_size,
        shared_path=False,
        output_map=False,
        own_lm_head=True,
        lm_head_bias=hydra,
        residual_projection=hydra,
    )
    tensors = {name: tensor for name, tensor in heads.tensors.items() if name in shape.tensor_shapes()}
    dtype = tensors["heads.0.blocks.0.weight"].dtype
    for head in range(config.num_heads):
        prefix = f"heads.{head}."
        tensors[prefix + "blocks.0.weight"] = heads.first_block(head)
        projection = tensors[prefix + "lm_head.weight"] if config.own_lm_head else cast(Tensor, lm_head)
        if config.output_map:
            projection = projection.float() @ heads.tensors[prefix + "map.weight"].float()
        tensors[prefix + "lm_head.weight"] = projection.to(dtype)
        if hydra and not config.lm_head_bias:
            tensors[prefix + "lm_head.bias"] = torch.zeros(config.vocab_size, dtype=dtype)
        if hydra and not config.residual_projection:
            tensors[prefix + "residual.weight"] = torch.eye(config.hidden_size, config.input_size(head), dtype=dtype)
            tensors[prefix + "residual.bias"] = torch.zeros(config.hidden_size, dtype=dtype)
    return DepthHeads(shape, tensors)


def _fields(config: DepthHeadsConfig) -> dict[str, Any]:
    """config.json: the keys of the methods' repositories, then what they leave to the target."""
    fields: dict[str, Any] = {
        f"{config.method}_num_heads": config.num_heads,
        f"{config.method}_num_layers": config.num_layers,
    }
    if config.reads_path:
        fields["hydra_head_arch"] = "prefix-mlp" if config.prefix else "mlp"
        fields |= {"grounded_heads": True, "hidden_state_offset": 0}
    elif not config.own_lm_head:
        fields["version"] = "2"
    fields["hidden_size"] = config.hidden_size
    fields["vocab_size"] = config.vocab_size
    fields["draft_vocab_size"] = config.draft_vocab_size
    if config.rank_accuracy:
        fields["rank_accuracy"] = [list(ranks) for ranks in config.rank_accuracy]
    return fields


def _check_written(folder: Path, heads: DepthHeads, target: Any) -> None:
    read = read_depth_heads(folder, target)
    if read.config != heads.config:
        raise CheckpointError(f"The heads written to {folder} read back as {read.config}, not as {heads.config}.")
    changed = [name for name, tensor in heads.tensors.items() if not torch.equal(read.tensors[name], tensor)]
    if changed:
        raise CheckpointError(f"Tensors written to {folder} read back differently: {', '.join(changed)}.")
