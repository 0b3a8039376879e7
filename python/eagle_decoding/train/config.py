"""Everything a training run can be told: strict dataclasses, filled from a YAML file and dotted overrides."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml

# What the published recipe of each kind of head sets differently from the defaults below.
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "eagle3": {},
    "eagle1": {
        "head": {"features": "final"},
        "unroll": {"steps": 1},
        "loss": {"token": 0.1, "feature": 1.0, "noise": 0.2},
    },
    "hass": {
        "head": {"features": "final"},
        "unroll": {"steps": 3, "decay": 1.0, "detach": True},
        "loss": {"token": 0.1, "feature": 1.0, "topk": 1.0, "noise": 0.2},
    },
    "medusa": {"unroll": {"steps": 4}},
    "hydra": {"unroll": {"steps": 4}},
    "hydra++": {
        "head": {"blocks": 4},
        "unroll": {"steps": 4},
        "optim": {"lr": 5e-4, "weight_decay": 0.1, "min_lr": 0.33},
    },
}


LAYER_KINDS = ("eagle3", "eagle1", "hass")  # heads whose body is one decoder layer


class ConfigError(ValueError):
    """A configuration that names an unknown key or gives a value of the wrong type or out of range."""


@dataclass(frozen=True)
class Range:
    """Which numbers a key takes: in words, and as a test."""

    words: str
    holds: Callable[[float], bool]


Seed = Annotated[int, Range("from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32)]
Count = Annotated[int, Range("1 or more", lambda value: value >= 1)]
Limit = Annotated[int, Range("0 or more", lambda value: value >= 0)]
Amount = Annotated[float, Range("0 or more", lambda value: value >= 0)]
Positive = Annotated[float, Range("more than 0", lambda value: value > 0)]
Share = Annotated[float, Range("from 0 to 1", lambda value: 0 <= value <= 1)]
Part = Annotated[float, Range("0 or more and less than 1", lambda value: 0 <= value < 1)]


@dataclass
class HeadOptions:
    """kind: the method, one of KINDS. draft_vocab_size: rows of the lm_head kept (0: all).
    num_kv_heads: key-value heads (0: as many as the target). fc_norm, norm_output: EAGLE-3.1.
    features: what the first step reads: "fused" (three layers' inputs, EAGLE-3) or "final" (the state after the final
    norm). blocks: residual blocks in each Medusa or Hydra head. warm_start: from the target's last layer.
    start: an EAGLE head of the same shape to go on from instead, its directory or hub id; the draft vocabulary may
    differ."""

    kind: str = "eagle3"
    features: str = "fused"
    draft_vocab_size: Limit = 0
    num_kv_heads: Limit = 0
    fc_norm: bool = False
    norm_output: bool = False
    blocks: Count = 1
    warm_start: bool = True
    start: str = ""

    def __post_init__(self) -> None:
        if self.start and self.kind not in LAYER_KINDS:
            raise ConfigError(
                f"head.start takes heads of the kinds {', '.join(LAYER_KINDS)}; head.kind is {self.kind!r}."
            )
        if self.features not in ("fused", "final"):
            raise ConfigError(f"The configuration key 'head.features' is {self.features!r}; known: fused, final.")


@dataclass
class DataOptions:
    """tokens: token shards (safetensors). features: folder that `capture` wrote. held_out: share of rows kept for
    evaluation (0: none, and nothing is reported on them). max_tokens: train on no more answer tokens than this (0:
    all); the rows are a random choice, and a smaller limit chooses among those of a larger one.
    pack_tokens: documents are packed up to this many tokens."""

    tokens: list[str] = field(default_factory=list)
    features: str = ""
    held_out: Part = 0.03
    max_tokens: Limit = 0
    pack_tokens: Count = 2048


@dataclass
class UnrollOptions:
    """steps: unrolled steps; decay: step j weighs decay^j; path_floor: see `unroll`, 0 computes every supervised
    row. detach: what a step reads of the one before carries no gradient (HASS)."""

    steps: Count = 5
    decay: Share = 0.8
    path_floor: Part = 0.0
    detach: bool = False


@dataclass
class LossOptions:
    """Weights. token: cross-entropy against the target's distribution; feature: smooth L1 against its final state
    (EAGLE-1); topk: cross-entropy over the target's ten likeliest tokens (HASS).

    noise: uniform noise of width noise * 512 / tokens of the document on what the first step reads (EAGLE-1)."""

    token: Amount = 1.0
    feature: Amount = 0.0
    topk: Amount = 0.0
    noise: Amount = 0.0


@dataclass
class OptimOptions:
    """AdamW with linear warmup and a cosine to min_lr (as shares of the run and of lr).

    The run ends after `epochs`; if `tokens` or `minutes` is positive, instead when it was trained on that many answer
    tokens, repeated ones included, or when that much time was spent, whichever is first. The schedule follows.
    packs: packs per optimiser step, over all processes. bf16: matrix products in bf16, weights and sums in fp32.
    shard: processes share out the weights and the optimiser's state (FSDP2) instead of each keeping all of it."""

    lr: Positive = 1e-3
    warmup: Share = 0.03
    min_lr: Share = 0.0
    betas: list[Part] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: Amount = 0.0
    clip: Positive = 0.5
    epochs: Positive = 3.0
    tokens: Limit = 0
    minutes: Amount = 0.0
    packs: Count = 1
    bf16: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"The configuration key 'optim.betas' is {self.betas}; it must be two numbers.")


@dataclass
class LogOptions:
    """Optimiser steps between log lines, evaluations on the held-out rows, and checkpoints. tensorboard: also write the
    figures for TensorBoard, into `out`."""

    every: Count = 10
    eval_every: Count = 200
    save_every: Count = 100
    tensorboard: bool = False


@dataclass
class TrainConfig:
    """One training run.

    target: directory, hub id or .gguf file. out: folder for checkpoints, logs and the trained head."""

    target: str = ""
    out: str = ""
    seed: Seed = 0
    head: HeadOptions = field(default_factory=HeadOptions)
    data: DataOptions = field(default_factory=DataOptions)
    unroll: UnrollOptions = field(default_factory=UnrollOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    log: LogOptions = field(default_factory=LogOptions)


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> TrainConfig:
    """The configuration in a YAML file, changed by `section.key=value` overrides; an unknown key is an error.

    What neither names is as the recipe of `head.kind` has it (KINDS), else the default.
    """
    values = _read(Path(path)) if path else {}
    for override in overrides or []:
        name, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"The override {override!r} is not of the form section.key=value.")
        *sections, key = name.split(".")
        place: Any = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"The override {override!r} goes into {section!r}, which is the value {place!r}.")
        place[key] = _yaml(text, f"The override {override!r}")
    return _fill(TrainConfig, _with_recipe(values), "")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"There is no configuration {path}; name a YAML file, see docs/training.md.")
    values = _yaml(path.read_text(), f"The configuration {path}") or {}
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration {path} must be a mapping of keys to values, not {values!r}.")
    return values


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is no YAML: {' '.join(str(error).split())}.") from None


def dump_config(config: TrainConfig) -> str:
    """The configuration as YAML that `load_config` reads back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def _with_recipe(values: dict[str, Any]) -> dict[str, Any]:
    head = values.get("head")
    kind = head.get("kind", "eagle3") if isinstance(head, dict) else "eagle3"
    if kind not in KINDS:
        raise ConfigError(f"The configuration key 'head.kind' is {kind!r}; known: {', '.join(KINDS)}.")
    given = {section: values[section] for section in KINDS[kind] if isinstance(values.get(section), dict)}
    return values | {section: recipe | given.get(section, {}) for section, recipe in KINDS[kind].items()}


def _fill(kind: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(
            f"The configuration section {prefix.rstrip('.') or 'at the top'!r} must be a mapping, not {values!r}."
        )
    hints = typing.get_type_hints(kind, include_extras=True)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"Unknown configuration key {prefix + unknown[0]!r}; known here: {', '.join(hints)}.")
    return kind(**{name: _convert(hints[name], value, prefix + name) for name, value in values.items()})


def _convert(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _fill(typing.cast(type, kind), value, name + ".")
    if typing.get_origin(kind) is Annotated:
        kind, allowed = typing.get_args(kind)
        number = _convert(kind, value, name)
        if not allowed.holds(number):
            raise ConfigError(f"The configuration key {name!r} is {value}; it must be {allowed.words}.")
        return number
    if isinstance(kind, types.GenericAlias):
        (item,) = typing.get_args(kind)
        if not isinstance(value, list):
            raise ConfigError(f"The configuration key {name!r} takes a list, not {value!r}.")
        return [_convert(item, entry, name) for entry in value]
    if kind is float and type(value) in (int, float, str):
        try:
            if math.isfinite(float(value)):
                return float(value)
        except (ValueError, OverflowError):
            pass
        raise ConfigError(f"The configuration key {name!r} takes a finite number, not {value!r}.")
    if type(value) is not kind:
        raise ConfigError(f"The configuration key {name!r} takes {kind.__name__}, not {value!r}.")
    return value
