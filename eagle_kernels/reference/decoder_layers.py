"""decoder_layers in plain torch: five ops a layer, one layer after the other."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eagle_kernels.reference.draft_mlp import draft_mlp
from eagle_kernels.reference.draft_output import draft_output
from eagle_kernels.reference.draft_qkv_rope import draft_qkv_rope
from eagle_kernels.reference.rms_norm import rms_norm
from eagle_kernels.reference.tree_attention import tree_attention


class LayerOps(NamedTuple):
    """The ops that a layer consists of, of one backend."""

    rms_norm: Callable[..., Tensor]
    draft_qkv_rope: Callable[..., Tensor]
    tree_attention: Callable[..., Tensor]
    draft_output: Callable[..., tuple[Tensor, Tensor]]
    draft_mlp: Callable[..., Tensor]


def decoder_layers(*arguments: Any) -> tuple[Tensor, Tensor]:
    ops = LayerOps(rms_norm, draft_qkv_rope, tree_attention, draft_output, draft_mlp)
    return layer_by_layer(ops, *arguments)


def layer_by_layer(
    ops: LayerOps,
    hidden_states: Tensor,
    norm_weight: Sequence[Tensor],
    qkv_weight: Sequence[Tensor],
    o_weight: Sequence[Tensor],
    mlp_norm_weight: Sequence[Tensor],
    gate_up_weight: Sequence[Tensor],
    down_weight: Sequence[Tensor],
    caches: Tensor,
    cache_rows: Tensor,
    rope_cos: Tensor,
    rope_sin: Tensor,
    position_ids: Tensor,
    context_len: Tensor,
    ancestor_mask: Tensor,
    num_heads: int,
    scale: float,
    eps: float,
    qkv_bias: Sequence[Tensor] = (),
    q_norm_weight: Sequence[Tensor] = (),
    k_norm_weight: Sequence[Tensor] = (),
    windows: Sequence[int] = (),
    boundaries: Sequence[int] = (),
    page_table: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    hidden, states = hidden_states, []
    for i, (keys, values) in enumerate(zip(*caches, strict=True)):
        if i in boundaries:
            states.append(hidden)
        normed = ops.rms_norm(hidden, norm_weight[i], eps)
        query = ops.draft_qkv_rope(
            normed,
            qkv_weight[i],
            qkv_bias[i] if qkv_bias else None,
            rope_cos,
            rope_sin,
            position_ids,
            keys,
            values,
            cache_rows,
            num_heads,
            page_table=page_table,
            q_norm_weight=q_norm_weight[i] if q_norm_weight else None,
            k_norm_weight=k_norm_weight[i] if k_norm_weight else None,
            norm_eps=eps,
        )
        window = windows[i] or None if windows else None
        found = ops.tree_attention(query, keys, values, context_len, ancestor_mask, scale, page_table, window)
        hidden, normed = ops.draft_output(found.flatten(2), o_weight[i], hidden, mlp_norm_weight[i], eps)
        hidden = ops.draft_mlp(normed, gate_up_weight[i], down_weight[i], hidden)
    return hidden, torch.stack(states) if states else hidden.new_empty(0, *hidden.shape)
