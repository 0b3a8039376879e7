"""draft_qkv_rope: projection, rotation and cache write, against torch's pieces."""

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from bench.case import WIDE_AND_FP8, Case, also_in_fp8, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes

CONTEXT = 256  # only the written rows of the cache are touched


def case(s: Sizes, make: Maker) -> Case:
    heads, length = s.num_heads + 2 * s.num_kv_heads, CONTEXT + 128
    x = make.normal(s.batch, s.topk, 2 * s.hidden_size)
    weight = make.weight(heads * s.head_dim, 2 * s.hidden_size)
    table = torch.outer(torch.arange(length), 1e4 ** -torch.linspace(0, 1, s.head_dim // 2))
    cos, sin = make.tensor(table.cos(), torch.float32), make.tensor(table.sin(), torch.float32)
    caches = [make.normal(s.batch, s.num_kv_heads, length, s.head_dim) for _ in range(2)]
    rows = make.tensor(CONTEXT + torch.arange(s.topk).repeat(s.batch, 1))
    num_bytes = nbytes(x, weight) + s.batch * s.topk * heads * s.head_dim * x.itemsize
    arguments = (x, weight, None, cos, sin, rows, *caches, rows, s.num_heads)
    return Case(arguments, num_bytes, 2 * s.batch * s.topk * weight.numel(), in_torch)


def in_torch(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    rope_cos: Tensor,
    rope_sin: Tensor,
    position_ids: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    num_heads: int,
) -> Tensor:
    heads = linear(x, qkv_weight, qkv_bias).unflatten(-1, (-1, key_cache.shape[-1])).transpose(1, 2)
    kv_heads = key_cache.shape[1]
    query, key, value = heads.split([num_heads, kv_heads, kv_heads], dim=1)
    cos, sin = (table[position_ids].repeat(1, 1, 2).to(x.dtype) for table in (rope_cos, rope_sin))
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    batch = torch.arange(len(x), device=x.device)[:, None]
    key_cache.transpose(1, 2)[batch, cache_rows] = key.transpose(1, 2)
    value_cache.transpose(1, 2)[batch, cache_rows] = value.transpose(1, 2)
    return query


bench_draft_qkv_rope = op_benchmark(
    "draft_qkv_rope", also_in_fp8("draft_qkv_rope", case), ("batch", "topk"), WIDE_AND_FP8
)
