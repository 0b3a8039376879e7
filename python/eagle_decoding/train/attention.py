"""Attention of the unrolled loop: causal over the first step's keys, plus one own key per later step."""

from __future__ import annotations

import torch
from torch import Tensor

from eagle_decoding.train.flash_attention import FlashUnrolledAttention, Span


def rope_tables(inv_freq: Tensor, positions: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine [R, 1, d] of the rotary angles at `positions` [R], in Llama's rotate-half layout."""
    angles = positions.to(inv_freq.dtype)[:, None] * inv_freq
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos() * scaling, angles.sin() * scaling


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of states [R, heads, d]."""
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat((-second, first), -1) * sin


def pack_attention(
    query: Tensor,
    source: Tensor,
    key: Tensor,
    value: Tensor,
    own_keys: list[Tensor],
    own_values: list[Tensor],
    spans: list[Span],
) -> Tensor:
    """`unrolled_attention` of every document of a pack: rows [R] and tokens [T] of all of them end to end."""
    if query.is_cpu:
        return FlashUnrolledAttention.apply(query, key, value, source, spans, *own_keys, *own_values)
    outputs = []
    for rows, tokens in spans:
        mine = ([states[rows] for states in own] for own in (own_keys, own_values))
        outputs.append(unrolled_attention(query[rows], source[rows], key[tokens], value[tokens], *mine))
    return torch.cat(outputs)


def unrolled_attention(
    query: Tensor,
    source: Tensor,
    key: Tensor,
    value: Tensor,
    own_keys: list[Tensor],
    own_values: list[Tensor],
) -> Tensor:
    """One document's attention at one step of training-time test (EAGLE-3, Li et al. 2025).

    query [R, nq, d]: rotated queries of the rows computed at this step.
    source [R], int64: position of each row in the document; it sees first-step keys 0..source.
    key, value [T, nkv, d]: the first step's keys and values of the whole document.
    own_keys, own_values: one [R, nkv, d] per later step up to this one; a row sees its own entry only.

    Returns [R, nq * d]. Scores of both parts share one softmax; nothing of size T times steps is formed.
    """
    rows, num_heads, head_dim = query.shape
    keys, num_kv_heads = key.shape[0], key.shape[1]
    group = num_heads // num_kv_heads
    grouped = query.view(rows, num_kv_heads, group, head_dim) * head_dim**-0.5
    hidden = torch.arange(keys, device=source.device) > source[:, None]
    bias = query.new_zeros(rows, keys).masked_fill_(hidden, -torch.inf)
    by_head = grouped.permute(1, 2, 0, 3).reshape(num_kv_heads, group * rows, head_dim)
    scores = torch.baddbmm(bias.repeat(group, 1), by_head, key.permute(1, 2, 0))
    own = [(grouped * k[:, :, None]).sum(-1).permute(1, 2, 0).reshape(num_kv_heads, -1, 1) for k in own_keys]
    weights = torch.cat([scores, *own], -1).softmax(-1)
    output = weights[..., :keys] @ value.transpose(0, 1)
    output = output.view(num_kv_heads, group, rows, head_dim).permute(2, 0, 1, 3)
    for i, own_value in enumerate(own_values):
        share = weights[..., keys + i].view(num_kv_heads, group, rows).permute(2, 0, 1)
        output = output + share[..., None] * own_value[:, :, None]
    return output.reshape(rows, num_heads * head_dim)
