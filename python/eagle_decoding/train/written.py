"""Writing a head and proving, by the code that serves it, that it still computes what it did."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import CheckpointError, Eagle1Config, Head, TargetFacts, read_head, write_head
from eagle_decoding.train.serving import serving_logits

ROWS = 16  # of random input that logits are compared on


def write_compared(
    head: Head,
    out: str | Path,
    format: str,
    dtype: torch.dtype,
    name: str | None = None,
    target: PreTrainedModel | None = None,
) -> float:
    """Write a head, its weights as dtype, and return the largest difference of its logits in fp32 to those before.

    name, target: what some formats say about the target. Raises CheckpointError if the logits of what was written are
    not those of the rounded weights.
    """
    rounded = {n: t if n == "d2t" else t.detach().to(dtype) for n, t in head.tensors.items()}
    write_head(out, head.config, rounded, format, _facts(name, target) if name and target is not None else None)
    before, after = logits(head), logits(read_head(out))
    if not torch.equal(after, logits(Head(head.config, rounded))):
        raise CheckpointError(f"The head written to {out} gives other logits than the one that was exported.")
    return float((before - after).abs().max())


def logits(head: Head) -> Tensor:
    """[ROWS, Vd], fp32: what the serving code computes for a few rows of random features and tokens.

    Random embeddings and, for EAGLE-1, a random lm_head of the whole vocabulary stand for the target's.
    """
    config, generator = head.config, torch.Generator().manual_seed(0)
    embed = torch.randn(config.vocab_size, config.hidden_size, generator=generator)
    tokens, width = torch.randint(config.vocab_size, (ROWS,), generator=generator), config.hidden_size
    if isinstance(config, Eagle1Config):
        head = Head(config, {name: tensor for name, tensor in head.tensors.items() if name != "d2t"})
    else:
        width = config.num_aux * config.target_hidden_size
    features = torch.randn(ROWS, width, generator=generator)
    return serving_logits(head, embed, features, tokens, embed / config.hidden_size**0.5)


def _facts(name: str, target: PreTrainedModel) -> TargetFacts:
    config = target.config.get_text_config()
    architectures = list(target.config.architectures or [type(target).__name__])
    return TargetFacts(name, architectures, config.num_hidden_layers, target.get_input_embeddings().weight)
