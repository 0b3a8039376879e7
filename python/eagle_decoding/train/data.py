"""Token rows with their loss mask, the held-out split, and the order in which packs of rows are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import Tensor

from eagle_decoding.train.errors import DataError
from eagle_decoding.train.files import read_shard
from eagle_decoding.train.rows import Documents


@dataclass(frozen=True)
class TokenRows:
    """Tokenised conversations, laid end to end.

    ids [T], int64: tokens, chat template included. supervised [T], bool: tokens the target wrote itself.
    starts [N + 1], int64: where each row begins, then T. greedy [N], bool: rows decoded at temperature 0.
    shards [S + 1]: the first row of each shard that was read, then N.
    """

    ids: Tensor
    supervised: Tensor
    starts: Tensor
    greedy: Tensor
    shards: list[int]

    def __len__(self) -> int:
        return self.starts.shape[0] - 1

    def length(self, row: int) -> int:
        return int(self.starts[row + 1] - self.starts[row])

    def supervised_tokens(self, row: int) -> int:
        """How many of the row's tokens the target wrote itself."""
        return int(self.supervised[self.starts[row] : self.starts[row + 1]].sum())

    def pack(self, rows: Sequence[int]) -> Documents:
        """The named rows as documents of one sequence."""
        spans = [slice(int(self.starts[r]), int(self.starts[r + 1])) for r in rows]
        lengths = torch.tensor([0] + [s.stop - s.start for s in spans])
        return Documents(
            torch.cat([self.ids[s] for s in spans]), torch.cat([self.supervised[s] for s in spans]), lengths.cumsum(0)
        )


def read_token_rows(paths: Sequence[str | Path]) -> TokenRows:
    """Rows of one or more token shards.

    A shard is a safetensors file: `ids` [T] (uint16 or int32, rows end to end), `length` [N], and either `prompt_len`
    [N] (tokens from there on are supervised) or `supervised` [T] (bool); optionally `temperature` [N].
    Raises DataError if a shard is missing, damaged or malformed, or no token is supervised.
    """
    parts: dict[str, list[Tensor]] = {"ids": [], "supervised": [], "length": [], "greedy": []}
    for path in paths:
        shard = read_shard(path)
        if "ids" not in shard or "length" not in shard or not {"prompt_len", "supervised"} & shard.keys():
            raise DataError(
                f"{path} holds {sorted(shard)}; a token shard holds ids, length and prompt_len or supervised."
            )
        length = shard["length"].long()
        if int(length.sum()) != shard["ids"].shape[0]:
            raise DataError(
                f"{path} holds {shard['ids'].shape[0]} ids, but its row lengths add up to {int(length.sum())}."
            )
        if "supervised" in shard:
            supervised = shard["supervised"].bool()
        else:
            position = torch.arange(int(length.sum())) - (length.cumsum(0) - length).repeat_interleave(length)
            supervised = position >= shard["prompt_len"].long().repeat_interleave(length)
        parts["ids"].append(shard["ids"].to(torch.int64))
        parts["supervised"].append(supervised)
        parts["length"].append(length)
        parts["greedy"].append(shard["temperature"] == 0 if "temperature" in shard else torch.ones_like(length).bool())
    if not parts["ids"]:
        raise DataError("No token shard was given; set data.tokens to at least one safetensors file.")
    joined = {name: torch.cat(tensors) for name, tensors in parts.items()}
    if not joined["supervised"].any():
        raise DataError(
            f"None of the {joined['ids'].shape[0]} tokens is supervised; check the loss mask of the shards."
        )
    starts = torch.cat((torch.zeros(1, dtype=torch.int64), joined["length"].cumsum(0)))
    shards = [0, *accumulate(len(length) for length in parts["length"])]
    return TokenRows(joined["ids"], joined["supervised"], starts, joined["greedy"], shards)


def split_rows(data: TokenRows, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """(training rows, held-out rows), each ascending; the share `held_out` of every shard is held out, the same rows
    whatever other shards are read with it."""
    split: tuple[list[int], list[int]] = ([], [])
    for first, end in pairwise(data.shards):
        order = torch.randperm(end - first, generator=torch.Generator().manual_seed(seed)) + first
        count = round((end - first) * held_out)
        split[0].extend(order[count:].sort().values.tolist())
        split[1].extend(order[:count].sort().values.tolist())
    return split


def limit_rows(data: TokenRows, rows: Sequence[int], max_tokens: int, seed: int) -> list[int]:
    """Rows, in ascending order, of which no more than max_tokens tokens are supervised (0: all of them); a random
    choice, in which a smaller limit takes a part of what a larger one takes."""
    if not max_tokens:
        return list(rows)
    kept, tokens = [], 0
    for index in torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist():
        tokens += data.supervised_tokens(rows[index])
        if tokens > max_tokens:
            break
        kept.append(rows[index])
    if not kept:
        raise DataError(f"data.max_tokens={max_tokens} is less than the {tokens} answer tokens of one row; raise it.")
    return sorted(kept)


def pack_rows(data: TokenRows, rows: Sequence[int], pack_tokens: int, seed: int | None) -> list[list[int]]:
    """Rows grouped into packs of at most `pack_tokens` tokens (a longer row is a pack of its own), shuffled unless
    seed is None."""
    order = list(rows)
    if seed is not None:
        shuffle = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
        order = [order[i] for i in shuffle]
    packs: list[list[int]] = []
    room = 0
    for row in order:
        length = data.length(row)
        if not packs or length > room:
            packs.append([])
            room = pack_tokens
        packs[-1].append(row)
        room -= length
    return packs


def draft_vocabulary(data: TokenRows, rows: Sequence[int], size: int, vocab_size: int) -> tuple[Tensor, float]:
    """The most frequent supervised tokens of the training rows, ascending, and the share of supervised tokens they
    cover.

    Returns ([size], int64 target ids, share). Ties go to the lower id; size 0 or the whole vocabulary keeps every
    token.
    """
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for row in rows:
        span = slice(int(data.starts[row]), int(data.starts[row + 1]))
        counts += torch.bincount(data.ids[span][data.supervised[span]], minlength=vocab_size)
    if size in (0, vocab_size):
        return torch.arange(vocab_size), 1.0
    kept = counts.sort(descending=True, stable=True).indices[:size].sort().values
    return kept, float(counts[kept].sum() / counts.sum())
