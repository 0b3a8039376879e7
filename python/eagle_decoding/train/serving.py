"""A draft head as the serving code runs it, on given features and tokens: states and logits of every position."""

from __future__ import annotations

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.cache import KvBuffer
from eagle_decoding.checkpoint import Head
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts import Eagle3Draft
from eagle_decoding.drafts.eagle3 import CHUNK


@torch.inference_mode()
def serving_logits(head: Head, embed: Tensor, features: Tensor, tokens: Tensor) -> Tensor:
    """[R, Vd]: logits for the token after next at every position of one text, from its true features.

    embed [V, H]: the target's embeddings; their dtype and device are computed in, and the head's own are used where it
    has some. features [R, A * Ht]: fused features of positions 0..R-1, side by side. tokens [R]: the token after each.
    """
    config, device, rows = head.config, embed.device, len(tokens)
    draft = Eagle3Draft(head, embed, config.num_layers, TreeConfig(2, 1, 1), embed.dtype, device)
    draft.cache = KvBuffer(1, 1, config.num_kv_heads, config.head_dim, embed.dtype, device)
    draft.cache.reserve(rows)
    hidden = draft.fuse(features[None].to(embed.dtype))
    states = []
    for start in range(0, rows, CHUNK):
        positions = torch.arange(start, min(start + CHUNK, rows), dtype=torch.int32, device=device)[None]
        chunk = slice(start, start + positions.shape[1])
        before = torch.tensor([start], dtype=torch.int32, device=device)
        mask = draft.causal_mask[:, : positions.shape[1]]
        states.append(
            draft.forward(tokens[None, chunk].int(), hidden[:, chunk].contiguous(), positions, before, mask, positions)
        )
    normed = eagle_kernels.rms_norm(torch.cat(states, 1), draft.norm, config.rms_norm_eps)
    return eagle_kernels.linear(normed, draft.lm_head)[0]
