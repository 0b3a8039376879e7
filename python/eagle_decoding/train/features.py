"""Target features on disk: which folder holds which row, and how a pack of rows is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from eagle_decoding.train.data import DataError, TokenRows


class FeatureShards:
    """Features that `capture` wrote: per token the fused layers' inputs and the state after the final norm.

    Each shard is a safetensors file: `features` [T, A + 1, H] (auxiliary features in ascending layer order, then the
    final state) and `row` [n], the rows it holds, end to end.
    """

    def __init__(self, folder: str | Path, data: TokenRows):
        self._files: list[Any] = []
        self._place: dict[int, tuple[int, int]] = {}
        self._data = data
        for path in sorted(Path(folder).glob("*.safetensors")):
            shard = safe_open(path, framework="pt")
            start = 0
            for row in shard.get_tensor("row").tolist():
                if row >= len(data):
                    raise DataError(
                        f"{path} holds features of row {row}; the token shards of data.tokens end at {len(data)}."
                    )
                self._place[row] = (len(self._files), start)
                start += data.length(row)
            if start != shard.get_slice("features").get_shape()[0]:
                raise DataError(f"{path} does not belong to these token shards: its rows hold {start} tokens there.")
            self._files.append(shard)
        if not self._files:
            raise DataError(f"The folder {folder} holds no feature shard; run `eagle-decoding capture` first.")

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
