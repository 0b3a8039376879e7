"""tree_attention: the kernel, the reference, and torch's SDPA with a boolean mask over the whole context."""

import pytest
import torch
from trees import random_tree_mask

import eagle_kernels
from eagle_kernels.reference.ancestor_mask import unpack

MODELS = {"smollm2-135m": (9, 3, 64), "qwen3-0.6b": (16, 8, 128), "llama-8b": (32, 8, 128)}  # heads, kv heads, head_dim
SIZES = [(100, 24), (500, 24), (2000, 1), (2000, 24), (2000, 60)]  # context, rows


def sdpa(query, key_cache, value_cache, context_len, ancestor_mask, scale) -> torch.Tensor:
    rows, context = query.shape[2], int(context_len[0])
    prefix = torch.ones(1, rows, context, dtype=torch.bool, device=query.device)
    visible = torch.cat([prefix, unpack(ancestor_mask)[:, :, :rows]], dim=2)[:, None]
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(query, key_cache, value_cache, attn_mask=visible, scale=scale, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}+{size[1]}")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("backend", ["cpp", "reference", "sdpa"])
def test_tree_attention(benchmark, backend, model, size, dtype):
    (heads, kv_heads, head_dim), (context, rows) = MODELS[model], size
    query = torch.randn(1, rows, heads, head_dim).to(dtype).transpose(1, 2)
    key, value = (torch.randn(1, kv_heads, context + rows, head_dim).to(dtype) for _ in range(2))
    context_len = torch.tensor([context], dtype=torch.int32)
    case = (query, key, value, context_len, random_tree_mask(1, rows), head_dim**-0.5)
    benchmark.extra_info["bytes"] = 2 * key.nbytes + 2 * query.nbytes
    benchmark.extra_info["flops"] = 4 * heads * rows * (context + rows) * head_dim
    if backend == "sdpa":
        benchmark(sdpa, *case)
    else:
        benchmark(eagle_kernels.tree_attention, *case, backend=backend)
