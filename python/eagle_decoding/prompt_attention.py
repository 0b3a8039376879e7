"""Attention of prompts: causal, in one call of torch's where it can, else a few hundred rows at a time."""

import torch
from torch import Tensor
from torch.nn import functional

ROWS = 256  # at a time, so that masks and scores stay small whatever the prompt


def prompt_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None, sinks: Tensor | None = None
) -> Tensor:
    """Attention of each token over itself and those before it; [batch, tokens, num_heads, head_dim], contiguous.

    query:      [batch, num_heads, tokens, head_dim]
    key, value: [batch, num_kv_heads, tokens, head_dim], dtype of query
    scale:      factor on the scores
    window:     how many tokens one sees at most, itself among them; None for all
    sinks:      [num_heads], dtype of query, a further score of every row that has no value; or None
    """
    tokens, grouped = query.shape[2], query.shape[1] != key.shape[1]
    window = min(window or tokens, tokens)
    if window == tokens and sinks is None:
        output = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
        )
        return output.transpose(1, 2).contiguous()
    output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    for start in range(0, tokens, ROWS):
        stop = min(start + ROWS, tokens)
        first = max(0, start + 1 - window)
        keys, values = key[:, :, first:stop], value[:, :, first:stop]
        position = torch.arange(first, stop, device=query.device)
        distance = position[start - first :, None] - position
        mask = (distance >= 0) & (distance < window)
        if sinks is not None:  # one key more, whose products are zero and whose value is zero
            keys, values = (functional.pad(part, (0, 0, 0, 1)) for part in (keys, values))
            scores = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
            mask = torch.cat([scores.expand(len(sinks), -1, -1), sinks[:, None, None].expand(-1, len(scores), 1)], 2)
        output[:, start:stop] = functional.scaled_dot_product_attention(
            query[:, :, start:stop], keys, values, attn_mask=mask, scale=scale, enable_gqa=grouped
        ).transpose(1, 2)
    return output
