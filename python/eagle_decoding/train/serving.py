"""A draft head as the serving code runs it, on given features and tokens: states and logits of every position."""

from __future__ import annotations

import torch
from torch import Tensor

from eagle_decoding.checkpoint import Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import Commit, Eagle3Draft


@torch.inference_mode()
def serving_logits(head: Head, embed: Tensor, features: Tensor, tokens: Tensor) -> Tensor:
    """[R, Vd]: logits for the token after next at every position of one text, from its true features.

    embed [V, H]: the target's embeddings; their dtype and device are computed in, and the head's own are used where it
    has some. features [R, A * Ht]: fused features of positions 0..R-1, side by side. tokens [R]: the token after each.
    """
    device, rows = embed.device, len(tokens)
    draft = Eagle3Draft(head, embed, head.config.num_layers, TreeConfig(2, 1, 1), embed.dtype, device)
    draft.layer.start(batch=1)
    none, all_rows = (torch.tensor([count], dtype=torch.int32, device=device) for count in (0, rows))
    positions = torch.arange(rows, dtype=torch.int32, device=device)[None]
    text = Commit(tokens[None].int(), features[None].to(embed.dtype), positions, none, all_rows, rows)
    return draft.logits(draft.read(text))[0][0]
