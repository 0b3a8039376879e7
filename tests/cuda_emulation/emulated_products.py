"""Attention, linear and the draft head on emulated CUDA kernels, with the signatures of the ops."""

import ctypes
from collections.abc import Sequence

import torch
from cuda_emulation.emulated import DTYPES, call, host_array, page_fields
from torch import Tensor

NO_WINDOW = 2**31 - 1


def _poison(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype or like.dtype)


def _numbers(*values: float) -> ctypes.Array:
    """float32 numbers for the launcher alone."""
    return (ctypes.c_float * len(values))(*values)


def _rows(t: Tensor) -> tuple[Tensor, int, int]:
    """Rows, copied where they are not evenly spaced; their number and stride in bytes."""
    rows = t.flatten(0, -2)
    return rows, rows.shape[0], (rows.stride(0) if rows.shape[0] > 1 else t.shape[-1]) * t.element_size()


def tree_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_len: Tensor,
    ancestor_mask: Tensor,
    scale: float,
    page_table: Tensor | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    batch, heads, rows, head_dim = query.shape
    output = _poison(query, batch, rows, heads, head_dim)
    strides = host_array(stride for t in (query, key_cache, value_cache) for stride in t.stride()[:3])
    sizes = batch, heads, key_cache.shape[1], rows, head_dim, ancestor_mask.shape[2], window or NO_WINDOW
    caches = key_cache, value_cache, strides, *page_fields(key_cache, page_table)
    tensors = output, query, *caches, context_len, ancestor_mask, sinks
    call("tree_attention", *tensors, DTYPES[query.dtype], *sizes, _numbers(scale))
    return output


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, weight_scale: Tensor | None = None) -> Tensor:
    outputs, inner = weight.shape
    output = _poison(input, *input.shape[:-1], outputs)
    call("linear", output, *_rows(input), weight, weight_scale, bias, DTYPES[input.dtype], inner, outputs)
    return output


def rms_norm(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    output, size = _poison(input, *input.shape), input.shape[-1]
    sizes = size, size * input.element_size()
    call("rms_norm", output, *_rows(input), weight, DTYPES[input.dtype], *sizes, _numbers(eps))
    return output


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    output = _poison(gate, *gate.shape)
    call("silu_mul", output, gate, *_rows(up), DTYPES[gate.dtype], gate.shape[-1])
    return output


def rope(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    outputs = _poison(query, *query.shape), _poison(key, *key.shape)
    batch, heads, rows, head_dim = query.shape
    strides = host_array(stride * t.element_size() for t in (query, key) for stride in t.stride()[:3])
    sizes = batch, heads, key.shape[1], rows, head_dim
    inputs = query, key, cos.contiguous(), sin.contiguous(), strides, head_dim * query.element_size()
    call("rope", *outputs, *inputs, DTYPES[query.dtype], *sizes)
    return outputs


def draft_input(
    token_ids: Tensor, hidden_states: Tensor, embed_weight: Tensor, embed_norm: Tensor, hidden_norm: Tensor, eps: float
) -> Tensor:
    vocabulary, size = embed_weight.shape
    output, code = _poison(hidden_states, *token_ids.shape, 2 * size), DTYPES[hidden_states.dtype]
    weights = embed_weight, embed_norm, hidden_norm
    call("draft_input", output, token_ids, *_rows(hidden_states), *weights, code, size, vocabulary, _numbers(eps))
    return output


def draft_qkv_rope(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    position_ids: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    num_heads: int,
    qkv_scale: Tensor | None = None,
    page_table: Tensor | None = None,
    q_norm_weight: Tensor | None = None,
    k_norm_weight: Tensor | None = None,
    norm_eps: float = 0.0,
) -> Tensor:
    batch, rows, inner = x.shape
    _, kv_heads, _, head_dim = key_cache.shape
    query = _poison(x, batch, num_heads, rows, head_dim)
    projection = x, _rows(x)[2], weight, qkv_scale, bias, q_norm_weight, k_norm_weight
    inputs = *projection, cos, sin, position_ids, key_cache, *_rows(value_cache)[::2], cache_rows
    sizes = batch, rows, inner, num_heads, kv_heads, head_dim, cos.shape[0]
    pages = page_fields(key_cache, page_table)
    call("draft_qkv_rope", query, *inputs, *pages, DTYPES[x.dtype], *sizes, _numbers(norm_eps))
    return query


def draft_output(
    attention: Tensor,
    weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    o_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    size, inner = weight.shape
    outputs = _poison(residual, *residual.shape), _poison(residual, *residual.shape)
    inputs = *_rows(attention), weight, o_scale, *_rows(residual)[::2], norm_weight
    call("draft_output", *outputs, *inputs, DTYPES[attention.dtype], inner, size, _numbers(eps))
    return outputs


def draft_mlp(
    normed: Tensor,
    gate_up: Tensor,
    down: Tensor,
    residual: Tensor,
    gate_up_scale: Tensor | None = None,
    down_scale: Tensor | None = None,
) -> Tensor:
    size, intermediate = down.shape
    hidden = _poison(residual, *residual.shape)
    inputs = *_rows(normed), gate_up, gate_up_scale, down, down_scale, *_rows(residual)[::2]
    call("draft_mlp", hidden, *inputs, DTYPES[normed.dtype], size, intermediate)
    return hidden


def decoder_layers(
    hidden_states: Tensor,
    norm_weight: list[Tensor],
    qkv_weight: list[Tensor],
    o_weight: list[Tensor],
    mlp_norm_weight: list[Tensor],
    gate_up_weight: list[Tensor],
    down_weight: list[Tensor],
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
    batch, rows, size = hidden_states.shape
    _, num_layers, _, kv_heads, _, head_dim = caches.shape
    hidden, states = (_poison(hidden_states, *shape, batch, rows, size) for shape in ((), (len(boundaries),)))
    kinds = norm_weight, qkv_weight, qkv_bias, q_norm_weight, k_norm_weight, o_weight
    kinds += mlp_norm_weight, gate_up_weight, down_weight
    layers = [  # the fields of DecoderLayer
        [
            *(of_kind[i].data_ptr() if of_kind else 0 for of_kind in kinds),
            caches[0, i].data_ptr(),
            caches[1, i].data_ptr(),
            windows[i] or NO_WINDOW if windows else NO_WINDOW,
            (states[list(boundaries).index(i + 1)] if i + 1 in boundaries else hidden).data_ptr(),
        ]
        for i in range(num_layers)
    ]
    fields = host_array(field for layer in layers for field in layer)
    entering = hidden_states, size * hidden_states.element_size(), fields, num_layers
    pages = page_fields(caches[0, 0], page_table)
    tree = rope_cos, rope_sin, position_ids, cache_rows, context_len, ancestor_mask, *pages
    sizes = batch, rows, size, down_weight[0].shape[1], num_heads, kv_heads, head_dim, len(rope_cos)
    sizes = DTYPES[hidden_states.dtype], *sizes, ancestor_mask.shape[2]
    reached = [*(weight for of_kind in kinds for weight in of_kind), caches, hidden, states]
    call("decoder_layers", *entering, *tree, *sizes, _numbers(scale, eps), reaches=reached)
    return hidden, states


def lm_head_topk(
    hidden_states: Tensor,
    norm_weight: Tensor,
    eps: float,
    weight: Tensor,
    k: int,
    d2t: Tensor | None = None,
    lm_head_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vocabulary, size = weight.shape
    leading = hidden_states.shape[:-1]
    normed = _poison(hidden_states, *hidden_states.shape)
    logprobs = _poison(hidden_states, *leading, k, dtype=torch.float32)
    token_ids = torch.full((*leading, k), -(2**31), dtype=torch.int32)
    outputs = normed, logprobs, token_ids, torch.zeros(leading, dtype=torch.bool)
    inputs = *_rows(hidden_states), norm_weight, weight, lm_head_scale, d2t, DTYPES[hidden_states.dtype]
    call("lm_head_topk", *outputs, *inputs, size, vocabulary, k, _numbers(eps))
    return outputs
