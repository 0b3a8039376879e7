"""From a training checkpoint, or a head in any format that reads, to a head directory in the format of one engine."""

from __future__ import annotations

from pathlib import Path

import torch

from eagle_decoding.checkpoint import CheckpointError, check_fits, depth_heads_files, draft_directory, read_head
from eagle_decoding.train.folder import begun_with
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.objectives.depth import rewrite
from eagle_decoding.train.state import newest_state
from eagle_decoding.train.target import frozen_target
from eagle_decoding.train.written import write_compared


def export_head(
    source: str | Path,
    out: str | Path,
    format: str = "portable",
    dtype: torch.dtype = torch.bfloat16,
    target: str | None = None,
) -> float | None:
    """Write a head directory; what was written is read back, and its logits are compared on random features.

    source: the `out` folder of a training run, whose newest checkpoint is taken, or a head's directory or hub id. out:
        the directory to write. format: a key of `FORMATS`, or what the head's kind has. dtype: element type of the
        weights. target: the target's name in the files; a run knows its own, a head needs it for formats that say
        something about the target.
    Returns the largest difference between the logits in fp32 of the source and of what was written, that of rounding to
    dtype; None for heads that are compared tensor by tensor. Raises CheckpointError if the format cannot hold the head
    or if it does not read back.
    """
    if any((Path(source) / name).exists() for name in ("config.yaml", "checkpoints")):
        config = begun_with(Path(source))
        state = newest_state(Path(source) / "checkpoints")
        if state is None:
            raise CheckpointError(f"There is no whole checkpoint in {Path(source) / 'checkpoints'}; train first.")
        config.target = target or config.target
        model = frozen_target(config.target)
        return OBJECTIVES[config.head.kind].export(config, state.head, model, out, format, dtype)
    directory = draft_directory(source)
    if depth_heads_files(directory):
        rewrite(directory, out, format, dtype, target)
        return None
    head, model = read_head(directory), frozen_target(target) if target else None
    if model is not None:
        check_fits(head.config, model.config)
    return write_compared(head, out, format, dtype, target, model)
