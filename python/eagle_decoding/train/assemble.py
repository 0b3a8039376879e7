"""From a configuration to a trainer that is ready to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from eagle_decoding.train.config import TrainConfig
from eagle_decoding.train.data import TokenRows, draft_vocabulary, limit_rows, read_token_rows, split_rows
from eagle_decoding.train.distributed import Processes
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.features import FeatureShards
from eagle_decoding.train.head import DraftHead
from eagle_decoding.train.initialise import random_init, start_from
from eagle_decoding.train.loop import Trainer
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.target import frozen_target

LOW_COVERAGE = 0.95


@dataclass(frozen=True)
class Facts:
    """What a run prints before it starts. coverage: share of supervised training tokens inside the draft vocabulary."""

    parameters: int
    train_rows: int
    held_out_rows: int
    supervised_tokens: int
    coverage: float

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M parameters; {self.train_rows} rows with {self.supervised_tokens} "
            f"supervised tokens, {self.held_out_rows} rows held out; the draft vocabulary covers {self.coverage:.1%}"
        )

    @property
    def warning(self) -> str | None:
        if self.coverage >= LOW_COVERAGE:
            return None
        return (
            f"The draft vocabulary covers {self.coverage:.1%} of the supervised tokens; "
            "the head can never draft the others, raise head.draft_vocab_size."
        )


def build_trainer(
    config: TrainConfig, report: Callable[[dict[str, Any]], None], processes: Processes | None = None
) -> tuple[Trainer, Facts]:
    """Load the target and the data, choose the draft vocabulary, initialise the head.

    processes: those that share the work; without them this process trains alone, on the CPU.
    """
    torch.manual_seed(config.seed)
    data = read_token_rows(config.data.tokens)
    target = frozen_target(config.target)
    features = FeatureShards(config.data.features, data, target)
    train, held_out = split_rows(data, config.data.held_out, config.seed)
    if not train:
        raise DataError(f"data.held_out={config.data.held_out:g} holds out all {len(data)} rows; lower it.")
    head, coverage = _build_head(config, target, data, train)
    captured = set(features.rows)
    train = [row for row in train if row in captured]
    held_out = [row for row in held_out if row in captured]
    train = limit_rows(data, train, config.data.max_tokens, config.seed)
    if not train:
        raise DataError(f"No training row has features in {config.data.features}; run `eagle-decoding capture` first.")
    if config.head.start:
        start_from(head, config.head.start)
    elif config.head.warm_start:
        objective = OBJECTIVES[config.head.kind]
        sample = train[: objective.warm_rows]
        objective.warm_start(head, target, data.pack(sample), *features.read(sample))
    else:
        random_init(head, target.config.get_text_config().initializer_range)
    supervised = sum(data.supervised_tokens(row) for row in train)
    if not supervised:
        raise DataError(f"None of the {len(train)} training rows has a supervised token; check the loss mask.")
    parameters = sum(parameter.numel() for parameter in head.parameters())
    facts = Facts(parameters, len(train), len(held_out), supervised, coverage)
    return Trainer(config, head, data, features, train, held_out, report, processes or Processes()), facts


def _build_head(config: TrainConfig, target: Any, data: TokenRows, rows: list[int]) -> tuple[DraftHead, float]:
    vocab_size = target.config.get_text_config().vocab_size
    target_ids, coverage = draft_vocabulary(data, rows, config.head.draft_vocab_size, vocab_size)
    return OBJECTIVES[config.head.kind].build(config, target, target_ids), coverage
