"""Run the target once over every token row and keep the features that training reads, in resumable shards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import default_aux_layer_ids
from eagle_decoding.train.data import TokenRows
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.features import PLAN, belonging, foreign_features, refuse_unplanned
from eagle_decoding.train.files import is_whole, keep_plan, save_shard
from eagle_decoding.train.target import target_features

ROWS_PER_SHARD = 64
BATCH_TOKENS = 1536


def feature_bytes(data: TokenRows, target: PreTrainedModel) -> int:
    """What the features of all rows take on disk: per token the fused states and the last, two bytes a value."""
    config = target.config.get_text_config()
    states = len(default_aux_layer_ids(config.num_hidden_layers)) + 1
    return int(data.starts[-1]) * states * config.hidden_size * 2


def capture(
    target: PreTrainedModel,
    data: TokenRows,
    folder: str | Path,
    max_gb: float,
    seed: int = 0,
    report: Callable[[int], None] = lambda tokens: None,
) -> None:
    """Write feature shards (bf16) for rows in random order, so that any number of shards is a fair sample.

    max_gb: refuse to start if the features take more (1e9 bytes each). Whole shards already in the folder are kept: a
    capture that was stopped goes on where it was, and a damaged shard is written again. report: called with the tokens
    of every finished shard.

    Raises DataError over the limit, if the folder holds features of other rows, of another target, by a target in
    another dtype or in the order of another seed, where less is free on the disk than the missing shards need, and when
    the disk runs full after all; every shard that is there is whole.
    """
    size = feature_bytes(data, target) / 1e9
    if size > max_gb:
        raise DataError(
            f"The features take {size:.1f} GB, over the limit of {max_gb:g} GB; give fewer rows or raise the limit."
        )
    layer_ids = default_aux_layer_ids(target.config.get_text_config().num_hidden_layers)
    folder = Path(folder)
    refuse_unplanned(folder)
    made_by = {"seed": seed, "dtype": str(target.dtype).removeprefix("torch.")}
    different = keep_plan(folder / PLAN, belonging(data, target) | made_by)
    if different:
        raise foreign_features(folder, different)
    missing = size - sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if missing > free:
        raise DataError(f"The features take {missing:.1f} GB more, but {folder} has {free:.1f} GB free; make room.")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    for index, start in enumerate(range(0, len(order), ROWS_PER_SHARD)):
        rows = sorted(order[start : start + ROWS_PER_SHARD], key=data.length)
        path = folder / f"{index:05d}.safetensors"
        if not is_whole(path):
            features = torch.cat([_features(target, data, batch, layer_ids) for batch in _batches(data, rows)])
            save_shard({"features": features, "row": torch.tensor(rows)}, path)
        report(sum(data.length(row) for row in rows))


def _batches(data: TokenRows, rows: list[int]) -> list[list[int]]:
    """Rows of similar length together (rows come sorted by length), at most BATCH_TOKENS padded tokens a batch."""
    batches: list[list[int]] = []
    for row in rows:
        if not batches or (len(batches[-1]) + 1) * data.length(row) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches


def _features(target: PreTrainedModel, data: TokenRows, rows: list[int], layer_ids: tuple[int, ...]) -> Tensor:
    """[sum of lengths, A + 1, H], bf16: the rows' features end to end; padding on the right is invisible to causal
    layers."""
    lengths = [data.length(row) for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = data.ids[data.starts[row] : data.starts[row + 1]]
    states = target_features(target, ids.to(target.device), layer_ids).to(torch.bfloat16).cpu()
    return torch.cat([states[i, :length] for i, length in enumerate(lengths)])
