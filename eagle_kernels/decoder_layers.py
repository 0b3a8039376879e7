"""decoder_layers: the decoder layers of a Llama-like model over the rows of a tree, in one call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def decoder_layers(
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
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Runs the residual stream through all layers; every layer has the bits of its five ops called one by one.

    A layer is rms_norm, draft_qkv_rope, tree_attention, draft_output and draft_mlp. One call does the work of five
    calls a layer, whose way through Python and torch a small model on a CPU feels.

    hidden_states:   [B, Q, H] float32, bfloat16 or float16, what enters the first layer; rows may be strided views
    norm_weight:     L tensors [H], dtype of hidden_states as all weights: the norms in front of attention
    qkv_weight:      L tensors [(num_heads + 2 * num_kv_heads) * d, H]
    o_weight:        L tensors [H, num_heads * d]
    mlp_norm_weight: L tensors [H], the norms in front of the MLPs
    gate_up_weight:  L tensors [2 * I, H], gate rows first
    down_weight:     L tensors [H, I]
    caches:          [2, L, B, num_kv_heads, C, d] same dtype, keys of all layers, then values, written in place; each
                     layer's contiguous. With a page table [2, L, num_pages, num_kv_heads, page_size, d]
    cache_rows:      [B, Q] int32, the cache row of each row, distinct within a request; -1 writes nothing
    rope_cos:        [P, d / 2] float32, a row per position
    rope_sin:        [P, d / 2] float32
    position_ids:    [B, Q] int32, 0 <= position < P
    context_len:     [B] int32, committed cache rows
    ancestor_mask:   [B, Q, W] int64, W = 1 or 2: bit j stands for cache row context_len + j
    num_heads:       query heads
    scale:           factor on attention's scores, usually d ** -0.5
    eps:             added to the mean of squares in every norm
    qkv_bias:        L tensors [(num_heads + 2 * num_kv_heads) * d], or none
    q_norm_weight, k_norm_weight: L tensors [d] each, the norms of query and key heads, or none
    windows:         L numbers, how many rows a row of a layer sees at most, at least 64 * W; 0, or no numbers: all
    boundaries:      layers, ascending, from 1 to L - 1, of which the entering stream is kept
    page_table:      [B, C / page_size] int32, or None for contiguous caches; see draft_qkv_rope and tree_attention

    Returns the stream that leaves the last layer, [B, Q, H], and the kept ones, [len(boundaries), B, Q, H].
    """
    return resolve("decoder_layers", hidden_states, backend)(
        hidden_states,
        norm_weight,
        qkv_weight,
        o_weight,
        mlp_norm_weight,
        gate_up_weight,
        down_weight,
        caches,
        cache_rows,
        rope_cos,
        rope_sin,
        position_ids,
        context_len,
        ancestor_mask,
        num_heads,
        scale,
        eps,
        qkv_bias,
        q_norm_weight,
        k_norm_weight,
        windows,
        boundaries,
        page_table,
    )


@torch.library.register_fake("eagle_kernels::decoder_layers")
def _(
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
    qkv_bias: Sequence[Tensor],
    q_norm_weight: Sequence[Tensor],
    k_norm_weight: Sequence[Tensor],
    windows: Sequence[int],
    boundaries: Sequence[int],
    page_table: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    shape = hidden_states.shape
    return hidden_states.new_empty(shape), hidden_states.new_empty(len(boundaries), *shape)
