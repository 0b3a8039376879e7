"""What a kind of head brings to the trainer; the loop, the data and the checkpoints are the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from eagle_decoding.train.config import TrainConfig
from eagle_decoding.train.head import DraftHead
from eagle_decoding.train.rows import Documents
from eagle_decoding.train.step import StepOutput


@dataclass(frozen=True)
class Objective:
    """One kind of head: how it is made, what it learns from a pack of documents, and how it is written.

    build(config, target, target_ids): the head with random parameters around the frozen weights of the target (a
        transformers model); target_ids [Vd], int64: the draft vocabulary, ascending.
    warm_start(head, target, documents, aux, final): its parameters from the target's, given `warm_rows` rows of the
        training text with the target's features.
    unroll(head, documents, aux, final, config, generator): the scores of one pack, step by step (for heads that predict
        side by side, head by head), at most `config.unroll.steps` of them. aux [T, A, H] and final [T, H], float: the
        target's features of the documents. generator: where noise and dropout come from; None evaluates: every
        supervised row is computed, and nothing is random.
    export(config, tensors, target, out, format, dtype): write the head directory from the tensors of a checkpoint, read
        it back and compare; the largest difference of logits, or None if tensors were compared.
    """

    build: Callable[[TrainConfig, Any, Tensor], DraftHead]
    warm_start: Callable[[Any, Any, Documents, Tensor, Tensor], None]
    unroll: Callable[[Any, Documents, Tensor, Tensor, TrainConfig, Generator | None], Iterator[StepOutput]]
    export: Callable[[TrainConfig, dict[str, Tensor], Any, str | Path, str, torch.dtype], float | None]
    warm_rows: int = 8
