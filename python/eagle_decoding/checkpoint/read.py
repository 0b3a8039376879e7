"""Read an EAGLE-3 or EAGLE-1 head directory, strictly: every unexpected, missing or misshapen tensor is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eagle_decoding.checkpoint.config import HeadConfig
from eagle_decoding.checkpoint.eagle1 import Eagle1Config, eagle1_from_fields, is_eagle1
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.fields import config_from_fields
from eagle_decoding.checkpoint.files import read_fields, read_weights
from eagle_decoding.checkpoint.names import normalise_tensors


@dataclass(frozen=True)
class Head:
    """A draft head: its configuration and its tensors under normalised names.

    config: HeadConfig for EAGLE-3, Eagle1Config for EAGLE-1 and what shares its format (EAGLE-2, HASS).
    tensors: those of `config.tensor_shapes()`; `d2t` [Vd], int64: target id = draft id + d2t[draft id].
    """

    config: HeadConfig | Eagle1Config
    tensors: dict[str, Tensor]

    @property
    def target_ids(self) -> Tensor:
        """The target's token for each draft token: [Vd], int64, on the CPU."""
        ids = torch.arange(self.config.draft_vocab_size)
        return ids + self.tensors["d2t"].cpu() if "d2t" in self.tensors else ids


def read_head(path: str | Path) -> Head:
    """The head in a directory that SafeAILab, HASS, SpecForge, ModelOpt, NeMo, speculators or this trainer wrote.

    path: a directory with config.json and one .safetensors or, failing that, .bin file (read with weights_only=True).

    Embeddings in the file are dropped where head and target are equally wide: the target's own are used, so that a head
    saved with untrained embeddings still drafts. Raises CheckpointError, one sentence naming everything that is wrong.
    """
    folder = Path(path)
    fields = read_fields(folder)
    tensors = normalise_tensors(_read_tensors(folder))
    kept = tensors.pop("t2d", None)
    config = eagle1_from_fields(fields, tensors) if is_eagle1(tensors) else config_from_fields(fields, tensors)
    expected = config.tensor_shapes()
    if not config.has_reduced_vocab:
        tensors.pop("d2t", None)
    if "embed_tokens.weight" not in expected:
        tensors.pop("embed_tokens.weight", None)
    check_shapes(folder, tensors, expected)
    _check_values(folder, tensors)
    if config.has_reduced_vocab:
        tensors["d2t"] = check_d2t(tensors["d2t"], kept, config.vocab_size)
    return Head(config, tensors)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) != 1:
        raise CheckpointError(
            f"{folder} holds {len(files)} weight files; "
            "a draft head is one .safetensors or one .bin file beside config.json."
        )
    return read_weights(files[0])


def check_shapes(folder: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise CheckpointError(f"The head in {folder} does not match its config.json: {'; '.join(problems)}.")


def _check_values(folder: Path, tensors: dict[str, Tensor]) -> None:
    weights = {name: tensor for name, tensor in tensors.items() if name != "d2t"}
    problems = [f"{n} holds {t.dtype} instead of floats" for n, t in weights.items() if not t.is_floating_point()]
    problems += [
        f"{n} holds NaN or infinity" for n, t in weights.items() if t.is_floating_point() and not t.isfinite().all()
    ]
    if problems:
        raise CheckpointError(f"The head in {folder} cannot be used: {'; '.join(problems)}.")


def check_d2t(d2t: Tensor, kept: Tensor | None, vocab_size: int) -> Tensor:
    """d2t as int64 offsets, checked: target ids ascend strictly, lie in the vocabulary, and agree with t2d."""
    d2t = d2t.long()
    ids = d2t + torch.arange(d2t.shape[0])
    if kept is not None and kept.shape != (vocab_size,):
        raise CheckpointError(f"t2d has shape {list(kept.shape)} instead of [{vocab_size}] (vocab_size).")
    if kept is not None and torch.equal(kept.bool().nonzero()[:, 0], d2t) and not torch.equal(ids, d2t):
        raise CheckpointError(
            "d2t of the head holds target ids; it must hold offsets (target id - draft id), as every engine reads it."
        )
    if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
        worst = int(torch.where((ids < 0) | (ids >= vocab_size))[0][0])
        raise CheckpointError(
            f"d2t[{worst}] = {int(d2t[worst])} maps draft token {worst} to target token {int(ids[worst])}; "
            f"target tokens lie in 0..{vocab_size - 1} and d2t holds offsets (target id - draft id)."
        )
    if not bool((ids.diff() > 0).all()):
        raise CheckpointError("d2t does not map draft tokens to strictly ascending target tokens; d2t holds offsets.")
    if kept is not None and not torch.equal(kept.bool().nonzero()[:, 0], ids):
        raise CheckpointError("d2t and t2d of the head name different target tokens; one of them is wrong.")
    return d2t
