"""Training-time test: the head runs on its own outputs for several steps, as it will when it drafts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Generator, Tensor

from eagle_decoding.train.attention import pack_attention, rope_tables, rotate
from eagle_decoding.train.config import LossOptions
from eagle_decoding.train.flash_attention import Span
from eagle_decoding.train.head import LayerHead
from eagle_decoding.train.losses import blended, feature_loss, linear_soft_cross_entropy, teacher_probabilities
from eagle_decoding.train.rows import Documents, needed_rows, supervised_rows
from eagle_decoding.train.step import StepOutput

PLAIN = LossOptions()


def unroll(
    head: LayerHead,
    documents: Documents,
    aux: Tensor,
    final: Tensor,
    steps: int,
    path_floor: float = 0.0,
    *,
    detach: bool = False,
    weights: LossOptions = PLAIN,
    generator: Generator | None = None,
) -> Iterator[StepOutput]:
    """Scores of every needed row, step by step (EAGLE-3, Li et al. 2025, section 3.2).

    One step over the target's final states is EAGLE-1's objective, several that are cut off from each other are the
    aligned steps of HASS (Zhang et al. 2024, arXiv 2408.15766).

    aux [T, A, Ht], float: the target's fused features. final [T, H], float: its states after the final norm.
    path_floor: a row stops after the step at which the head's own probability of the text since t falls below this
        value: a draft tree that keeps the most probable paths does not reach it either. 0 computes every row.
    detach: no gradient flows from a step into the one before.
    weights: of the losses; the token and top-k losses share one pass, as cross-entropy against a blended teacher.
    generator: source of the noise on the first step's states; None adds none.
    """
    law = supervised_rows(documents, steps)
    needed = needed_rows(law)
    tokens = head.draft_ids[documents.input_ids]
    predicted = torch.nonzero(law[0])[:, 0] + 2
    teacher, token_weight = blended(teacher_probabilities(final[predicted - 1], head.lm_head), weights)
    teacher_row = torch.full_like(documents.input_ids, -1)
    teacher_row[predicted] = torch.arange(predicted.shape[0], device=predicted.device)

    positions, embedding = documents.positions, head.embed_tokens
    log_floor = math.log(path_floor) if path_floor > 0 else -math.inf
    following = documents.input_ids.roll(-1)
    hidden = head.begin(aux, final).to(final.dtype)  # the residual stream stays in fp32 under autocast
    if generator is not None and weights.noise:
        hidden = hidden + feature_noise(hidden, documents, weights.noise, generator)
    joined, residual = head.enter(embedding[following], hidden)
    key, value = _keys_values(head, joined, positions)
    rows = torch.nonzero(needed[0])[:, 0]
    hidden, joined, residual = hidden[rows], joined[rows], residual[rows]
    own_keys: list[Tensor] = []
    own_values: list[Tensor] = []
    path = torch.zeros(rows.shape[0], device=rows.device)
    for step in range(steps):
        if step:
            keep = needed[step][rows] & (path >= log_floor)
            rows, hidden, path = rows[keep], hidden[keep], path[keep]
            hidden = hidden.detach() if detach else hidden
            joined, residual = head.enter(embedding[documents.input_ids[rows + 1 + step]], hidden)
            own_keys, own_values = [k[keep] for k in own_keys], [v[keep] for v in own_values]
            own_key, own_value = _keys_values(head, joined, positions[rows] + step)
            own_keys.append(own_key)
            own_values.append(own_value)
        if rows.shape[0] == 0:
            return
        hidden = _layer(head, documents, rows, step, joined, residual, key, value, own_keys, own_values)
        normed, hidden = head.finish(hidden)
        scored = law[step][rows]
        target = rows[scored] + 2 + step
        scores = linear_soft_cross_entropy(normed[scored], head.lm_head, teacher, teacher_row[target], tokens[target])
        path = path.masked_scatter(scored, path[scored] + scores.logprob)
        extra = feature_loss(normed[scored], final[target - 1]) * weights.feature if weights.feature else None
        weight = token_weight[teacher_row[target]] if isinstance(token_weight, Tensor) else token_weight
        yield StepOutput(step, rows[scored], scores, tokens[target], int(law[step].sum()), weight, extra)


def feature_noise(hidden: Tensor, documents: Documents, width: float, generator: Generator) -> Tensor:
    """Uniform noise [T, H] of EAGLE-1's training (SafeAILab/EAGLE), wider in short documents: width * 512 / tokens."""
    uniform = torch.rand(hidden.shape, generator=generator).to(hidden.device) - 0.5
    lengths = documents.starts.diff()
    return uniform * (width * 512 / lengths.repeat_interleave(lengths))[:, None]


def _keys_values(head: LayerHead, joined: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotated keys and values [R, nkv, d] of what attention reads, joined [R, A]."""
    attention, head_dim = head.layer.self_attn, head.config.head_dim
    cos, sin = rope_tables(head.inv_freq, positions, head.rope_scaling)
    key = attention.k_proj(joined).unflatten(-1, (-1, head_dim))
    return rotate(key, cos, sin), attention.v_proj(joined).unflatten(-1, (-1, head_dim)).to(cos.dtype)


def _layer(
    head: LayerHead,
    documents: Documents,
    rows: Tensor,
    step: int,
    joined: Tensor,
    residual: Tensor,
    key: Tensor,
    value: Tensor,
    own_keys: list[Tensor],
    own_values: list[Tensor],
) -> Tensor:
    """The draft layer on the rows of one step: attention document by document, then the MLP."""
    layer, source = head.layer, documents.positions[rows]
    cos, sin = rope_tables(head.inv_freq, source + step, head.rope_scaling)
    query = rotate(layer.self_attn.q_proj(joined).unflatten(-1, (-1, head.config.head_dim)), cos, sin)
    bounds = torch.searchsorted(rows, documents.starts).tolist()
    spans = [
        Span(slice(first, last), slice(start, end - 2))
        for (first, last), (start, end) in zip(pairwise(bounds), pairwise(documents.starts.tolist()), strict=True)
        if first < last
    ]
    attended = pack_attention(query, source, key, value, own_keys, own_values, spans)
    hidden = residual + layer.self_attn.o_proj(attended)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))
