"""One spelling for the tensor names of every EAGLE-3 producer."""

from __future__ import annotations

import re

from torch import Tensor

from eagle_decoding.checkpoint.errors import CheckpointError

PREFIXES = ("model.", "draft_model.", "eagle_module.")
AUX_NORMS = {"aux_norm_low": "fc_norm.0", "aux_norm_mid": "fc_norm.1", "aux_norm_high": "fc_norm.2"}
IGNORED = re.compile(r"rotary_emb|^verifier_")


def normalise_name(name: str) -> str | None:
    """The normalised spelling of a tensor name, or None for a tensor that the head does not need.

    `midlayer.*` (SafeAILab, SpecForge) becomes `layers.0.*` (ModelOpt, speculators), wrapper prefixes go, SGLang's
    `aux_norm_low|mid|high` become `fc_norm.0|1|2`; rotary buffers and copies of the target (`verifier_*`) are dropped.
    """
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    if IGNORED.search(name):
        return None
    stem, _, rest = name.partition(".")
    if stem == "midlayer":
        return f"layers.0.{rest}"
    return f"{AUX_NORMS[stem]}.{rest}" if stem in AUX_NORMS else name


def normalise_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under normalised names; two that collide are an error."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = normalise_name(name)
        if new is None:
            continue
        if new in result:
            raise CheckpointError(f"Two tensors of the head are both {new!r}; one of them is stored as {name!r}.")
        result[new] = tensor
    return result
