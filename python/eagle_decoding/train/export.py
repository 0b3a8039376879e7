"""From a training checkpoint, or a head in any format that reads, to a head directory in the format of one engine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import CheckpointError, Head, TargetFacts, check_fits, read_head, write_head
from eagle_decoding.train.config import load_config
from eagle_decoding.train.serving import serving_logits
from eagle_decoding.train.state import newest_state
from eagle_decoding.train.target import frozen_target, head_config

ROWS = 16  # of random input that logits are compared on


def export_head(
    source: str | Path,
    out: str | Path,
    format: str = "portable",
    dtype: torch.dtype = torch.bfloat16,
    target: str | None = None,
) -> float:
    """Write a head directory; what was written is read back, and its logits are compared on random features.

    source: the `out` folder of a training run, whose newest checkpoint is taken, or a head directory. out: the
        directory to write. format: a key of `FORMATS`. dtype: element type of the weights. target: the target's name in
        the files; a run knows its own, a head directory needs it for formats that say something about the target.
    Returns the largest difference between the logits in fp32 of the source and of what was written: that of rounding to
    dtype. Raises CheckpointError if the format cannot hold the head or if it does not read back.
    """
    trained = (Path(source) / "config.yaml").exists()
    name = target or (load_config(Path(source) / "config.yaml").target if trained else None)
    model = frozen_target(name) if name else None
    if trained:
        assert model is not None
        head = trained_head(source, model)
    else:
        head = read_head(source)
        if model is not None:
            check_fits(head.config, model.config)
    rounded = {name: t if name == "d2t" else t.detach().to(dtype) for name, t in head.tensors.items()}
    write_head(out, head.config, rounded, format, _facts(name, model) if name and model is not None else None)
    embed = torch.randn(head.config.vocab_size, head.config.hidden_size, generator=torch.Generator().manual_seed(0))
    before, after = logits(head, embed), logits(read_head(out), embed)
    if not torch.equal(after, logits(Head(head.config, rounded), embed)):
        raise CheckpointError(f"The head written to {out} gives other logits than the one that was exported.")
    return float((before - after).abs().max())


def trained_head(run: str | Path, target: PreTrainedModel) -> Head:
    """The newest checkpoint of a training run; the lm_head is the target's own rows of the draft vocabulary."""
    config = load_config(Path(run) / "config.yaml")
    state = newest_state(Path(run) / "checkpoints")
    if state is None:
        raise CheckpointError(f"There is no whole checkpoint in {Path(run) / 'checkpoints'}; train first.")
    shape = head_config(target, config.head)
    target_ids = torch.arange(shape.draft_vocab_size)
    if shape.has_reduced_vocab:
        target_ids = target_ids + state.head["d2t"]
    lm_head = target.get_output_embeddings().weight[target_ids]
    return Head(shape, state.head | {"lm_head.weight": lm_head.detach()})


def _facts(name: str, model: PreTrainedModel) -> TargetFacts:
    config = model.config.get_text_config()
    architectures = list(model.config.architectures or [type(model).__name__])
    return TargetFacts(name, architectures, config.num_hidden_layers, model.get_input_embeddings().weight)


def logits(head: Head, embed: Tensor) -> Tensor:
    """[ROWS, Vd], fp32: what the serving code computes from a head for a few rows of random features and tokens.

    embed [V, H]: embeddings to read tokens with, where the head has none of its own
    """
    config, generator = head.config, torch.Generator().manual_seed(1)
    features = torch.randn(ROWS, config.num_aux * config.target_hidden_size, generator=generator)
    return serving_logits(head, embed, features, torch.randint(config.vocab_size, (ROWS,), generator=generator))
