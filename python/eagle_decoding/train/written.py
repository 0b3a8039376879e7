"""Write a head and compare its logits before and after, as the serving code computes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from eagle_decoding.checkpoint import CheckpointError, Head, HeadConfig, TargetFacts, read_head, write_head
from eagle_decoding.train.serving import serving_logits

ROWS = 16  # of random input that logits are compared on


def write_compared(
    out: str | Path, head: Head, format: str, dtype: torch.dtype, target: TargetFacts | None
) -> float | None:
    """Write a head in dtype; the largest difference of an EAGLE-3 head's logits to those of what reads back.

    Raises CheckpointError if the format cannot hold the head or if it does not read back.
    """
    rounded = {name: t if name == "d2t" else t.detach().to(dtype) for name, t in head.tensors.items()}
    write_head(out, head.config, rounded, format, target)
    if not isinstance(head.config, HeadConfig):
        return None
    embed = torch.randn(head.config.vocab_size, head.config.hidden_size, generator=torch.Generator().manual_seed(0))
    before, after = logits(head, embed), logits(read_head(out), embed)
    if not torch.equal(after, logits(Head(head.config, rounded), embed)):
        raise CheckpointError(f"The head written to {out} gives other logits than the one that was exported.")
    return float((before - after).abs().max())


def logits(head: Head, embed: Tensor) -> Tensor:
    """[ROWS, Vd], fp32: what the serving code computes from an EAGLE-3 head for a few rows of random features.

    embed [V, H]: embeddings to read tokens with, where the head has none of its own
    """
    config, generator = head.config, torch.Generator().manual_seed(1)
    assert isinstance(config, HeadConfig)
    features = torch.randn(ROWS, config.num_aux * config.target_hidden_size, generator=generator)
    return serving_logits(head, embed, features, torch.randint(config.vocab_size, (ROWS,), generator=generator))
