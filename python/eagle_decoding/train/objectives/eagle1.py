"""EAGLE-1 and HASS: feature regression and token loss on one head, after one step or after several aligned ones.

HASS differs from EAGLE-1 by its recipe (`config.KINDS`): three steps that read their own states without gradient, and
the top-k loss (Zhang et al. 2024, arXiv 2408.15766).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eagle_decoding.checkpoint import Eagle1Config, Head
from eagle_decoding.target import output_weight
from eagle_decoding.train.config import ConfigError, TrainConfig
from eagle_decoding.train.eagle1_head import Eagle1Head
from eagle_decoding.train.initialise import warm_eagle1
from eagle_decoding.train.objectives.base import Objective
from eagle_decoding.train.objectives.eagle3 import run
from eagle_decoding.train.target import layer_shape
from eagle_decoding.train.written import write_compared


def build(config: TrainConfig, target: Any, target_ids: Tensor) -> Eagle1Head:
    """A head over the target's state after its final norm."""
    embeddings = target.get_input_embeddings().weight.detach()
    return Eagle1Head(head_config(config, target), embeddings, output_weight(target), target_ids)


def head_config(config: TrainConfig, target: Any) -> Eagle1Config:
    """The shape of the head that fits this target; fc has no bias, which vLLM could not represent."""
    options = config.head
    if options.features != "final" or options.fc_norm or options.norm_output:
        raise ConfigError(
            f"A head of kind {options.kind!r} reads the target's final state without norms of its own; leave out "
            "head.features, head.fc_norm and head.norm_output, or take kind 'eagle3'."
        )
    return Eagle1Config(**layer_shape(target, options))


def export(
    config: TrainConfig, tensors: dict[str, Tensor], target: Any, out: str | Path, format: str, dtype: torch.dtype
) -> float:
    """The engines' formats store the target's embeddings; nothing else of it is written."""
    return write_compared(Head(head_config(config, target), tensors), out, format, dtype, config.target, target)


EAGLE1 = Objective(build=build, warm_start=warm_eagle1, unroll=run, export=export, warm_rows=64)
