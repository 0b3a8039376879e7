"""Target features on disk: which folder holds which row, and how a pack of rows is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.train.data import TokenRows
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.files import differing
from eagle_decoding.train.target import target_fingerprint

PLAN = "plan.json"


def belonging(data: TokenRows, target: PreTrainedModel) -> dict[str, str]:
    """What features are features of, by hashes: the tokens of every row in their order, and the target's weights."""
    digest = hashlib.sha256()
    for tensor in (data.ids, data.starts):
        digest.update(tensor.numpy().tobytes())
    return {"data.tokens": digest.hexdigest(), "target": target_fingerprint(target)}


def foreign_features(folder: str | Path, different: list[str]) -> DataError:
    """The refusal of a folder whose features were captured with other `different`."""
    return DataError(
        f"{folder} holds features that were captured with another {' and '.join(different)}; give another "
        "data.features, or delete that folder and run `eagle-decoding capture` anew."
    )


def refuse_unplanned(folder: str | Path) -> None:
    """Raises DataError for shards that do not say what they were captured from."""
    if any(Path(folder).glob("*.safetensors")) and not (Path(folder) / PLAN).exists():
        raise DataError(
            f"{folder} holds feature shards without a {PLAN}, so nothing says what they belong to; delete the folder "
            "and run `eagle-decoding capture` anew."
        )


def opened(path: Path) -> Any:
    """A shard of which slices can be read. Raises DataError for a damaged one."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise DataError(
            f"The feature shard {path} is damaged ({error}); run `eagle-decoding capture` again, which replaces it."
        ) from error


class FeatureShards:
    """Features that `capture` wrote: per token the fused layers' inputs and the state after the final norm.

    Each shard is a safetensors file: `features` [T, A + 1, H] (auxiliary features in ascending layer order, then the
    final state) and `row` [n], the rows it holds, end to end.
    """

    def __init__(self, folder: str | Path, data: TokenRows, target: PreTrainedModel):
        """Raises DataError if the folder holds no features, or features of other rows or of another target."""
        refuse_unplanned(folder)
        self._files: list[Any] = []
        self._place: dict[int, tuple[int, int]] = {}
        self._data = data
        paths = sorted(Path(folder).glob("*.safetensors"))
        if not paths:
            raise DataError(f"The folder {folder} holds no feature shard; run `eagle-decoding capture` first.")
        different = differing(Path(folder) / PLAN, belonging(data, target))
        if different:
            raise foreign_features(folder, different)
        for path in paths:
            shard = opened(path)
            start = 0
            for row in shard.get_tensor("row").tolist():
                if row >= len(data.starts) - 1:
                    raise DataError(
                        f"{path} holds features of row {row}; the token shards of data.tokens end at "
                        f"{len(data.starts) - 1}: delete the folder and run `eagle-decoding capture` anew."
                    )
                self._place[row] = (len(self._files), start)
                start += data.length(row)
            if start != shard.get_slice("features").get_shape()[0]:
                raise DataError(f"{path} does not belong to these token shards: its rows hold {start} tokens there.")
            self._files.append(shard)

    @property
    def rows(self) -> list[int]:
        """Rows whose features are on disk, ascending."""
        return sorted(self._place)

    def read(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(aux [T, A, H], final [T, H]), fp32, of the named rows laid end to end."""
        parts = []
        for row in rows:
            file, start = self._place[row]
            parts.append(self._files[file].get_slice("features")[start : start + self._data.length(row)])
        features = torch.cat(parts).float()
        return features[:, :-1], features[:, -1]
