"""From a training checkpoint to a head directory that inference engines read."""

from __future__ import annotations

from pathlib import Path

import torch

from eagle_decoding.checkpoint import CheckpointError
from eagle_decoding.train.config import load_config
from eagle_decoding.train.objectives import OBJECTIVES
from eagle_decoding.train.state import newest_state
from eagle_decoding.train.target import frozen_target


def export_head(
    run: str | Path, out: str | Path, format: str = "portable", dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write the newest checkpoint of a training run as a head directory; what was written is read back and compared.

    run: the `out` folder of a training run. out: the directory to write. dtype: element type of the weights.
    """
    config = load_config(Path(run) / "config.yaml")
    state = newest_state(Path(run) / "checkpoints")
    if state is None:
        raise CheckpointError(f"There is no whole checkpoint in {Path(run) / 'checkpoints'}; train first.")
    OBJECTIVES[config.head.kind].export(config, state.head, frozen_target(config.target), out, format, dtype)
