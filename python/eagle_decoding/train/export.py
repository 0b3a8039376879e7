"""From a training checkpoint to a head directory that inference engines read."""

from __future__ import annotations

from pathlib import Path

import torch

from eagle_decoding.checkpoint import CheckpointError, write_head
from eagle_decoding.train.config import load_config
from eagle_decoding.train.state import newest_state
from eagle_decoding.train.target import frozen_target, head_config


def export_head(
    run: str | Path, out: str | Path, format: str = "portable", dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write the newest checkpoint of a training run as a head directory; what was written is read back and compared.

    run: the `out` folder of a training run. out: the directory to write. dtype: element type of the weights.
    The lm_head is the target's own rows of the draft vocabulary, so it is taken from the target again.
    """
    config = load_config(Path(run) / "config.yaml")
    state = newest_state(Path(run) / "checkpoints")
    if state is None:
        raise CheckpointError(f"There is no whole checkpoint in {Path(run) / 'checkpoints'}; train first.")
    target = frozen_target(config.target)
    shape = head_config(target, config.head)
    tensors = {name: tensor for name, tensor in state.head.items() if name != "d2t"}
    target_ids = torch.arange(shape.draft_vocab_size)
    if shape.has_reduced_vocab:
        target_ids = target_ids + state.head["d2t"]
    tensors["lm_head.weight"] = target.get_output_embeddings().weight[target_ids]
    tensors = {name: tensor.detach().to(dtype) for name, tensor in tensors.items()}
    if shape.has_reduced_vocab:
        tensors["d2t"] = state.head["d2t"]
    write_head(out, shape, tensors, format)
