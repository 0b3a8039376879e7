"""Read a directory of Medusa or Hydra heads, strictly: every unexpected, missing or misshapen tensor is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eagle_decoding.checkpoint.depth_heads import DepthHeads, DepthHeadsConfig, layer_of
from eagle_decoding.checkpoint.depth_layouts import FILES, HYDRA_BLOCK, MEDUSA_BLOCK, PREFIX, UNUSED, stored_names
from eagle_decoding.checkpoint.errors import CheckpointError
from eagle_decoding.checkpoint.files import read_fields, read_weights
from eagle_decoding.checkpoint.read import check_d2t, check_shapes

ARCHITECTURES = ("mlp", "prefix-mlp")


def depth_heads_files(folder: str | Path) -> tuple[str, list[Path]] | None:
    """(method, weight files) if the directory holds Medusa or Hydra heads, else None.

    Medusa-2 tuned the target along with its heads and stores both in the shards of one model, as `medusa_head.*`.
    """
    folder = Path(folder)
    for method, names in FILES.items():
        for name in names:
            if (folder / name).is_file():
                return method, [folder / name]
    if (folder / "config.json").is_file() and "medusa_num_heads" in read_fields(folder):
        shards = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
        return ("medusa", shards) if shards else None
    return None


def read_depth_heads(path: str | Path, target: Any) -> DepthHeads:
    """The Medusa or Hydra heads in a directory, in the layout of their repositories or in this project's smaller one.

    path: a directory with config.json and `medusa_lm_head` or `hydra_lm_head` as .safetensors or .pt (read with
        weights_only=True).
    target: the transformers configuration of the target, which the published files leave its widths to.

    Copies of the target's embeddings in the file are dropped. Raises CheckpointError, one sentence naming everything
    that is wrong.
    """
    folder = Path(path)
    found = depth_heads_files(folder)
    if found is None:
        raise CheckpointError(f"{folder} holds neither Medusa nor Hydra heads ({', '.join(sum(FILES.values(), ()))}).")
    method, files = found
    fields, target = read_fields(folder), target.get_text_config()
    _check_fits(fields, target)
    tensors = _read_tensors(method, files)
    config = (_medusa_config if method == "medusa" else _hydra_config)(fields, tensors, target)
    names, shapes, stored_once = stored_names(config), config.tensor_shapes(), dict[str, str]()
    for stored, name in names.items():
        stored_once.setdefault(name, stored)
    expected = {s: shapes[name] for s, name in names.items() if s in tensors or s == stored_once[name]}
    check_shapes(folder, tensors, expected)
    for stored in expected:
        first = stored_once[names[stored]]
        if not torch.equal(tensors[stored], tensors[first]):
            raise CheckpointError(
                f"{stored} and {first} in {folder} differ, but the layers of a {method} head share one block."
            )
    result = {name: tensors[stored] for name, stored in stored_once.items()}
    if config.has_reduced_vocab:
        result["d2t"] = check_d2t(result["d2t"], None, config.vocab_size)
    return DepthHeads(config, result)


def _read_tensors(method: str, files: list[Path]) -> dict[str, Tensor]:
    """The heads' tensors; of a whole model's, those that carry the heads' prefix."""
    own, prefix = files[0].name in FILES[method], f"{method}_head."
    tensors = {name: tensor for file in files for name, tensor in read_weights(file, "" if own else prefix).items()}
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if not UNUSED.search(name)}


def _check_fits(fields: dict[str, Any], target: Any) -> None:
    """What this project's files say about the target and the published ones do not."""
    problems = [
        f"{key} {fields[key]} against the target's {getattr(target, key)}"
        for key in ("hidden_size", "vocab_size")
        if key in fields and fields[key] != getattr(target, key)
    ]
    if problems:
        raise CheckpointError(f"The heads do not fit the target: {'; '.join(problems)}; use heads trained for it.")


def _common(fields: dict[str, Any], tensors: dict[str, Tensor], target: Any) -> dict[str, Any]:
    accuracy = fields.get("rank_accuracy")
    reduced = tensors["d2t"].shape[0] if "d2t" in tensors else target.vocab_size
    return {
        "hidden_size": target.hidden_size,
        "vocab_size": target.vocab_size,
        "draft_vocab_size": fields.get("draft_vocab_size") or reduced,
        "output_map": any(name.endswith(".map.weight") for name in tensors),
        "rank_accuracy": tuple(tuple(map(float, ranks)) for ranks in accuracy) if accuracy else None,
    }


def _medusa_config(fields: dict[str, Any], tensors: dict[str, Tensor], target: Any) -> DepthHeadsConfig:
    """Heads are counted in the file: published config.json files name a wrong number of them."""
    places = [match.groups() for match in map(MEDUSA_BLOCK.fullmatch, tensors) if match]
    num_layers = fields.get("medusa_num_layers") or len({layer for _, layer in places})
    return DepthHeadsConfig(
        method="medusa",
        num_heads=len({head for head, _ in places}),
        num_layers=num_layers,
        own_lm_head=any(name.endswith(f".{num_layers}.weight") for name in tensors),
        **_common(fields, tensors, target),
    )


def _hydra_config(fields: dict[str, Any], tensors: dict[str, Tensor], target: Any) -> DepthHeadsConfig:
    architecture = fields.get("hydra_head_arch", "mlp")
    if architecture not in ARCHITECTURES or not fields.get("grounded_heads", True):
        raise CheckpointError(
            f"The Hydra heads have hydra_head_arch {architecture!r} and grounded_heads "
            f"{fields.get('grounded_heads', True)}; known are grounded heads of {' and '.join(ARCHITECTURES)}."
        )
    places = [match.groups() for match in map(HYDRA_BLOCK.fullmatch, tensors) if match]
    return DepthHeadsConfig(
        method="hydra",
        num_heads=len({head for head, _ in places}),
        num_layers=fields.get("hydra_num_layers") or len({index for _, index in places}),
        shared_path=any(name.startswith("hydra_path.") for name in tensors),
        residual_projection=any(".res_connection." in name for name in tensors),
        own_lm_head=any(name.startswith("hydra_lm_head.") for name in tensors),
        lm_head_bias=any(name.startswith("hydra_lm_head.") and name.endswith(".bias") for name in tensors),
        prefix=layer_of(target) if any(name.startswith(PREFIX) for name in tensors) else None,
        **_common(fields, tensors, target),
    )
