"""One forward of an EAGLE-3 head by the ops and by torch, against the bytes of its weights and its cache."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

import eagle_kernels
from bench.case import nbytes
from bench.gpu.rows import DeviceMaker, Rows
from eagle_decoding.floor.work import Work
from eagle_decoding.numerics.cases import Maker, Sizes, with_fp8_weights
from eagle_decoding.tree import causal_words

EPS = 1e-5
SPARE = 128  # rows of the cache behind the context


class Weights(NamedTuple):
    """What a forward streams; larger than any second-level cache, so that one set is never found there."""

    qkv: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor
    lm_head: Tensor


Scales = Weights | tuple[None, ...]  # of fp8 weights, matrix by matrix
WIDE: Scales = (None,) * len(Weights._fields)


@dataclass(frozen=True)
class Inputs:
    """`topk` nodes of one level behind `context_len` committed rows; each node sees those before it."""

    sizes: Sizes
    tokens: Tensor
    states: Tensor
    embedding: Tensor
    norm: Tensor
    cos: Tensor
    sin: Tensor
    positions: Tensor
    keys: Tensor
    values: Tensor
    cache_rows: Tensor
    context_len: Tensor
    mask: Tensor


def random_weights(s: Sizes, make: Maker) -> Weights:
    return Weights(
        qkv=make.weight((s.num_heads + 2 * s.num_kv_heads) * s.head_dim, 2 * s.hidden_size),
        output=make.weight(s.hidden_size, s.num_heads * s.head_dim),
        gate_up=make.weight(2 * s.intermediate_size, s.hidden_size),
        down=make.weight(s.hidden_size, s.intermediate_size),
        lm_head=make.weight(s.draft_vocab_size, s.hidden_size),
    )


def random_inputs(s: Sizes, make: Maker) -> Inputs:
    rows, length = s.topk, s.context_len + SPARE
    table = torch.outer(torch.arange(length), 1e4 ** -torch.linspace(0, 1, s.head_dim // 2))
    return Inputs(
        s,
        tokens=make.integers(0, s.draft_vocab_size, 1, rows),
        states=make.normal(1, rows, s.hidden_size),
        embedding=make.normal(s.draft_vocab_size, s.hidden_size),
        norm=make.normal(s.hidden_size) + 1,
        cos=make.tensor(table.cos(), torch.float32),
        sin=make.tensor(table.sin(), torch.float32),
        positions=make.tensor([[s.context_len] * rows]),
        keys=make.normal(1, s.num_kv_heads, length, s.head_dim),
        values=make.normal(1, s.num_kv_heads, length, s.head_dim),
        cache_rows=make.tensor(s.context_len + torch.arange(rows)[None]),
        context_len=make.tensor([s.context_len]),
        mask=causal_words(rows, make.device),
    )


def in_fp8(weights: Weights) -> tuple[Weights, Weights]:
    """The weights and their scales."""
    found = [with_fp8_weights("linear", (None, weight)) for weight in weights]
    return Weights(*(arguments[1] for arguments, _ in found)), Weights(*(scale["weight_scale"] for _, scale in found))


def forward(x: Inputs, w: Weights, scales: Scales = WIDE) -> tuple[Tensor, ...]:
    """The ops: what drafts/decoder_layer.py and drafts/eagle3.py call for one level of a tree."""
    qkv, output, gate_up, down, lm_head = scales
    entered = eagle_kernels.draft_input(x.tokens, x.states, x.embedding, x.norm, x.norm, EPS)
    query = eagle_kernels.draft_qkv_rope(
        entered, w.qkv, None, x.cos, x.sin, x.positions, x.keys, x.values, x.cache_rows, x.sizes.num_heads, qkv
    )
    scale = x.sizes.head_dim**-0.5
    attention = eagle_kernels.tree_attention(query, x.keys, x.values, x.context_len, x.mask, scale)
    residual, normed = eagle_kernels.draft_output(attention.flatten(2), w.output, x.states, x.norm, EPS, output)
    last = eagle_kernels.draft_mlp(normed, w.gate_up, w.down, residual, gate_up, down)
    return eagle_kernels.lm_head_topk(last, x.norm, EPS, w.lm_head, x.sizes.topk, lm_head_scale=lm_head)[1:3]


def in_torch(x: Inputs, w: Weights) -> tuple[Tensor, ...]:
    """What a user of torch would write for the same level."""
    s, width = x.sizes, (x.sizes.hidden_size,)
    heads, rows, context = s.num_heads + 2 * s.num_kv_heads, s.topk, s.context_len
    entered = torch.cat([rms_norm(t, width, x.norm, EPS) for t in (embedding(x.tokens, x.embedding), x.states)], -1)
    projected = linear(entered, w.qkv).view(1, rows, heads, s.head_dim).transpose(1, 2)
    query, key, value = projected.split([s.num_heads, s.num_kv_heads, s.num_kv_heads], dim=1)
    cos, sin = (table[x.positions.long()].repeat(1, 1, 2)[:, None].to(query.dtype) for table in (x.cos, x.sin))
    x.keys[:, :, context : context + rows] = rotated(key, cos, sin)
    x.values[:, :, context : context + rows] = value
    seen = torch.ones(rows, context + rows, dtype=torch.bool, device=query.device).tril(context)
    keys, values = x.keys[:, :, : context + rows], x.values[:, :, : context + rows]
    attention = scaled_dot_product_attention(rotated(query, cos, sin), keys, values, seen, enable_gqa=True)
    residual = x.states + linear(attention.transpose(1, 2).flatten(2), w.output)
    gate, up = linear(rms_norm(residual, width, x.norm, EPS), w.gate_up).chunk(2, dim=-1)
    last = residual + linear(silu(gate) * up, w.down)
    logits = linear(rms_norm(last, width, x.norm, EPS), w.lm_head)
    found = logits.float().log_softmax(-1).topk(s.topk)
    return found.values, found.indices


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def work_of(w: Weights, s: Sizes) -> Work:
    """Weights once, and the context's keys and values once."""
    cached = 2 * s.num_kv_heads * s.context_len * s.head_dim * torch.bfloat16.itemsize
    attention = 4 * s.topk * s.num_heads * s.context_len * s.head_dim
    return Work(nbytes(*w) + cached, 2 * s.topk * sum(weight.numel() for weight in w) + attention)


def add_draft_forward(rows: Rows, sizes: Sizes) -> None:
    """A row for each type of the weights, with torch's own way in bf16 beside it."""
    make = DeviceMaker(torch.bfloat16, rows.watch.device)
    inputs, weights = random_inputs(sizes, make), random_weights(sizes, make)
    arms = {"bfloat16": (weights, WIDE), "float8_e4m3fn": in_fp8(weights)}
    rivals: dict[str, Callable[[], list[Callable[[], object]]]] = {"torch": lambda: [lambda: in_torch(inputs, weights)]}
    for name, own in arms.items():
        calls = [lambda own=own: forward(inputs, *own)]
        rows.add(
            "draft forward",
            calls,
            work_of(own[0], sizes),
            rivals,
            weights=name,
            rows=sizes.topk,
            context=sizes.context_len,
        )
