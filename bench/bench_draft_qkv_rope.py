"""draft_qkv_rope: projection, rotation and cache write, against torch's pieces."""

import pytest
import torch
from draft_head import smollm2_head
from test_draft_qkv_rope import make_case
from torch.nn.functional import linear
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import eagle_kernels


def in_torch(
    x, qkv_weight, qkv_bias, rope_cos, rope_sin, position_ids, key_cache, value_cache, cache_rows, num_heads
) -> torch.Tensor:
    heads = linear(x, qkv_weight, qkv_bias).unflatten(-1, (-1, key_cache.shape[-1])).transpose(1, 2)
    kv_heads = key_cache.shape[1]
    query, key, value = heads.split([num_heads, kv_heads, kv_heads], dim=1)
    cos, sin = (table[position_ids].repeat(1, 1, 2).to(x.dtype) for table in [rope_cos, rope_sin])
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    key_cache.index_copy_(2, cache_rows[0], key)
    value_cache.index_copy_(2, cache_rows[0], value)
    return query


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "torch"])
def bench_draft_qkv_rope(benchmark, implementation, rows, dtype):
    case = make_case(smollm2_head(dtype, rows), bias=False)
    case["cache_rows"] = torch.arange(rows, dtype=torch.int32).unsqueeze(0)
    benchmark.extra_info["bytes"] = case["qkv_weight"].nbytes + case["x"].nbytes
    benchmark.extra_info["flops"] = 2 * rows * case["qkv_weight"].numel()
    if implementation == "torch":
        benchmark(in_torch, **case)
    else:
        benchmark(eagle_kernels.draft_qkv_rope, **case, backend=implementation)
