"""A draft head as the serving code runs it, on given features and tokens: logits of every position."""

from __future__ import annotations

import torch
from torch import Tensor

from eagle_decoding.checkpoint import Eagle1Config, Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import Commit, Eagle1Draft, Eagle3Draft


@torch.inference_mode()
def serving_logits(
    head: Head, embed: Tensor, features: Tensor, tokens: Tensor, lm_head: Tensor | None = None
) -> Tensor:
    """[R, Vd]: logits for the token after next at every position of one text, from its true features.

    embed [V, H]: the target's embeddings; their dtype and device are computed in, and the head's own are used where it
    has some. features [R, A * Ht]: fused features of positions 0..R-1, side by side; for EAGLE-1 states after the final
    norm. tokens [R]: the token after each. lm_head [V, H]: the target's, which EAGLE-1 heads need.
    """
    config, device, rows, tree = head.config, embed.device, len(tokens), TreeConfig(2, 1, 1)
    draft: Eagle1Draft | Eagle3Draft
    if isinstance(config, Eagle1Config):
        assert lm_head is not None
        draft = Eagle1Draft(head, embed, lm_head, config.num_layers, tree, embed.dtype, device)
    else:
        draft = Eagle3Draft(head, embed, config.num_layers, tree, embed.dtype, device)
    commit = Commit(
        tokens=tokens[None].int(),
        features=features[None].to(embed.dtype),
        position_ids=torch.arange(rows, dtype=torch.int32, device=device)[None],
        context_len=torch.zeros(1, dtype=torch.int32, device=device),
        num_rows=torch.full((1,), rows, dtype=torch.int32, device=device),
        committed=rows,
    )
    draft.layer.start(1)
    return draft.logits(draft.read(commit))[0]
