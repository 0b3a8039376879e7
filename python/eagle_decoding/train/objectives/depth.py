"""Medusa-1, Hydra and Hydra++: a head per depth, distilled from the target along its own text.

Cai et al. 2024, arXiv 2401.10774; Ankner et al. 2024, arXiv 2402.05109.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from eagle_decoding.checkpoint import (
    CheckpointError,
    DepthHeads,
    DepthHeadsConfig,
    layer_of,
    read_depth_heads,
    write_depth_heads,
)
from eagle_decoding.target import output_weight
from eagle_decoding.train.config import TrainConfig
from eagle_decoding.train.data import pack_rows, read_token_rows, split_rows
from eagle_decoding.train.depth_head import DepthHead
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.initialise import copy_mlp, copy_projections, ridge, source_layer
from eagle_decoding.train.objectives.base import Objective
from eagle_decoding.train.rank_accuracy import rank_accuracy
from eagle_decoding.train.rows import Documents
from eagle_decoding.train.step import StepOutput
from eagle_decoding.train.target import frozen_target
from eagle_decoding.train.unroll_heads import path_tokens, unroll_heads

MEASURED_TOKENS = 16_384  # of training rows, for the accuracies that shape the tree


def build(config: TrainConfig, target: Any, target_ids: Tensor) -> DepthHead:
    """`unroll.steps` heads."""
    embeddings = target.get_input_embeddings().weight.detach()
    return DepthHead(heads_config(config, target), embeddings, output_weight(target), target_ids)


def heads_config(config: TrainConfig, target: Any) -> DepthHeadsConfig:
    """The shape of the heads that fit this target."""
    text = target.config.get_text_config()
    return DepthHeadsConfig(
        method="medusa" if config.head.kind == "medusa" else "hydra",
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        draft_vocab_size=config.head.draft_vocab_size or text.vocab_size,
        num_heads=config.unroll.steps,
        num_layers=config.head.blocks,
        shared_path=config.head.kind != "medusa",
        output_map=True,
        prefix=layer_of(text) if config.head.kind == "hydra++" else None,
    )


@torch.no_grad()
def warm_start(head: DepthHead, target: Any, documents: Documents, aux: Tensor, final: Tensor) -> None:
    """Every head starts as the best linear guess: of the target's state at t + 1 + j, by ridge regression over the
    sample, from the state at t and, for Hydra, the tokens after it. Blocks add nothing yet.

    The prefix layer is the target's last without its outputs, or random where that is of another shape; the norm behind
    it gives the states back their size.

    documents, final [T, H]: a sample of the text, and the target's states after its final norm.
    """
    for name, parameter in head.named_parameters():
        if name.startswith(("heads.", "tokens.")):
            nn.init.zeros_(parameter)
    for step in range(head.config.num_heads):
        _guess_linearly(head, documents, final, step)
    if head.config.prefix:
        source, prefix = source_layer(target), head.prefix
        if source is not None:
            copy_projections(prefix.layer.self_attn, source.self_attn, 0)
            copy_mlp(prefix.layer.mlp, source.mlp)
        for projection in (prefix.layer.self_attn.o_proj, prefix.layer.mlp.down_proj):
            projection.weight.zero_()
        prefix.norm.weight.fill_(final.square().mean(-1).sqrt().mean())


def _guess_linearly(head: DepthHead, documents: Documents, final: Tensor, step: int) -> None:
    """The map of head `step`, and the matrix of the token that no head before it reads: map (x + matrix token)."""
    now = torch.nonzero(torch.arange(len(final)) + 1 + step < documents.ends)[:, 0]
    path = path_tokens(documents, now, step)
    state = head.add_path(step, final[now], path)
    inputs = torch.cat((state, head.embed_tokens[path[:, 0]]), -1) if head.config.reads_path else state
    linear = ridge(inputs, final[now + 1 + step])
    size = head.config.hidden_size
    head.get_parameter(f"heads.{step}.map.weight").copy_(linear[:, :size])
    if head.config.reads_path:
        token = ridge(linear[:, :size], linear[:, size:])
        head.get_parameter(f"tokens.{step}.weight").copy_(token.T)


def run(
    head: DepthHead, documents: Documents, aux: Tensor, final: Tensor, config: TrainConfig, generator: Generator | None
) -> Iterator[StepOutput]:
    """All heads; the path floor spares rows in training only."""
    return unroll_heads(head, documents, final, config.unroll.steps, config.unroll.path_floor if generator else 0.0)


def export(
    config: TrainConfig,
    tensors: dict[str, Tensor],
    target: Any,
    out: str | Path,
    format: str,
    dtype: torch.dtype,
) -> None:
    """The lm_head stays with the target; the features of the training rows, if still there, say which tree is best."""
    shape = replace(heads_config(config, target), rank_accuracy=measured_accuracy(config, tensors, target))
    _write(out, DepthHeads(shape, tensors), target, format, dtype)


def rewrite(source: str | Path, out: str | Path, format: str, dtype: torch.dtype, target: str | None) -> None:
    """Write the heads of one directory into another, in another format; target: directory or hub id of their target."""
    if target is None:
        raise CheckpointError("Medusa and Hydra heads leave their widths and lm_head to the target: name it too.")
    model = frozen_target(target)
    _write(out, read_depth_heads(source, model.config), model, format, dtype)


def _write(out: str | Path, heads: DepthHeads, target: Any, format: str, dtype: torch.dtype) -> None:
    stored = {name: tensor if name == "d2t" else tensor.detach().to(dtype) for name, tensor in heads.tensors.items()}
    write_depth_heads(out, DepthHeads(heads.config, stored), target.config, format, output_weight(target))


def measured_accuracy(
    config: TrainConfig, tensors: dict[str, Tensor], target: Any
) -> tuple[tuple[float, ...], ...] | None:
    """`rank_accuracy` on training rows, greedily decoded ones where there are any; None without their features."""
    if not any(Path(config.data.features).glob("*.safetensors")):
        return None
    vocabulary = torch.arange(config.head.draft_vocab_size or target.config.get_text_config().vocab_size)
    head = build(config, target, vocabulary + tensors.get("d2t", 0))
    head.load_state_dict(tensors)
    data = read_token_rows(config.data.tokens)
    features = FeatureShards(config.data.features, data, target)
    train = set(split_rows(data, config.data.held_out, config.seed)[0])
    rows = [row for row in features.rows if row in train]
    rows = [row for row in rows if data.greedy[row]] or rows
    packs = pack_rows(data, rows, config.data.pack_tokens, config.seed)
    measured = packs[: max(1, MEASURED_TOKENS // config.data.pack_tokens)]
    return rank_accuracy(head, ((data.pack(pack), features.read(pack)[1]) for pack in measured))


DEPTH = Objective(build=build, warm_start=warm_start, unroll=run, export=export, warm_rows=64)
