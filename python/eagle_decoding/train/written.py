"""Writing a head and proving, by the code that serves it, that it still computes what it did."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle_decoding.checkpoint import CheckpointError, Eagle1Config, Head, TargetFacts, read_head, write_head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import Commit, Eagle1Draft, Eagle3Draft

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
    """[1, ROWS, Vd], fp32: what the serving code computes for a few rows of random features and tokens.

    Random embeddings and, for EAGLE-1, a random lm_head of the whole vocabulary stand for the target's.
    """
    config, generator = head.config, torch.Generator().manual_seed(0)
    tree, dtype, device = TreeConfig(2, 1, 1), torch.float32, torch.device("cpu")
    embed = torch.randn(config.vocab_size, config.hidden_size, generator=generator)
    draft: Eagle1Draft | Eagle3Draft
    if isinstance(config, Eagle1Config):
        whole = Head(config, {name: tensor for name, tensor in head.tensors.items() if name != "d2t"})
        lm_head = embed / config.hidden_size**0.5
        draft, width = Eagle1Draft(whole, embed, lm_head, 1, tree, dtype, device), config.hidden_size
    else:
        draft = Eagle3Draft(head, embed, config.num_layers, tree, dtype, device)
        width = config.num_aux * config.target_hidden_size
    index = torch.arange(ROWS, dtype=torch.int32)[None]
    commit = Commit(
        tokens=torch.randint(config.vocab_size, (1, ROWS), generator=generator, dtype=torch.int32),
        features=torch.randn(1, ROWS, width, generator=generator),
        position_ids=index,
        context_len=torch.zeros(1, dtype=torch.int32),
        num_rows=torch.full((1,), ROWS, dtype=torch.int32),
        committed=ROWS,
    )
    draft.layer.start(1)
    return draft.logits(draft.read(commit))


def _facts(name: str, target: PreTrainedModel) -> TargetFacts:
    config = target.config.get_text_config()
    architectures = list(target.config.architectures or [type(target).__name__])
    return TargetFacts(name, architectures, config.num_hidden_layers, target.get_input_embeddings().weight)
