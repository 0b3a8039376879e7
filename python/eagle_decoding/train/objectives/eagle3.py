"""EAGLE-3: training-time test over fused features, token loss only (Li et al. 2025, arXiv 2503.01840)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from eagle_decoding.checkpoint import Head, HeadConfig
from eagle_decoding.target import output_weight
from eagle_decoding.train.config import TrainConfig
from eagle_decoding.train.eagle3_head import Eagle3Head
from eagle_decoding.train.initialise import warm_eagle3
from eagle_decoding.train.objectives.base import Objective
from eagle_decoding.train.rows import Documents
from eagle_decoding.train.step import StepOutput
from eagle_decoding.train.target import check_fusable, layer_shape
from eagle_decoding.train.unroll import unroll
from eagle_decoding.train.written import write_compared


def build(config: TrainConfig, target: Any, target_ids: Tensor) -> Eagle3Head:
    """A head over the default three features, or over the state after the final norm."""
    embeddings = target.get_input_embeddings().weight.detach()
    return Eagle3Head(head_config(config, target), embeddings, output_weight(target), target_ids)


def head_config(config: TrainConfig, target: Any) -> HeadConfig:
    """The shape of the head that fits this target. Raises ConfigError where that has not the layers to fuse."""
    check_fusable(target, config.head)
    text = target.config.get_text_config()
    final = config.head.features == "final"
    return HeadConfig(
        **layer_shape(target, config.head),
        target_hidden_size=text.hidden_size,
        num_aux=1 if final else 3,
        aux_layer_ids=(text.num_hidden_layers + 1,) if final else None,
        fc_norm=config.head.fc_norm,
        norm_output=config.head.norm_output,
    )


def run(
    head: Eagle3Head, documents: Documents, aux: Tensor, final: Tensor, config: TrainConfig, generator: Generator | None
) -> Iterator[StepOutput]:
    """Training-time test; the path floor spares rows in training only."""
    options = config.unroll
    floor = options.path_floor if generator else 0.0
    return unroll(
        head,
        documents,
        aux,
        final,
        options.steps,
        floor,
        detach=options.detach,
        weights=config.loss,
        generator=generator,
    )


def export(
    config: TrainConfig, tensors: dict[str, Tensor], target: Any, out: str | Path, format: str, dtype: torch.dtype
) -> float:
    """The lm_head is the target's own rows of the draft vocabulary, so it is taken from the target again."""
    head = Head(head_config(config, target), tensors)
    lm_head = output_weight(target)[head.target_ids]
    head = replace(head, tensors=tensors | {"lm_head.weight": lm_head})
    return write_compared(head, out, format, dtype, config.target, target)


EAGLE3 = Objective(build=build, warm_start=warm_eagle3, unroll=run, export=export)
