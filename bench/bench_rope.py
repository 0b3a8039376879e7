"""rope: queries and keys of SmolLM2-135M as its projections leave them, against transformers' eager function."""

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import eagle_kernels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 10, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "transformers"])
def bench_rope(benchmark, implementation, rows, dtype):
    query, key = (torch.randn(1, rows, heads, 64).to(dtype).transpose(1, 2) for heads in [9, 3])
    cos, sin = torch.randn(2, 1, rows, 64).to(dtype)
    benchmark.extra_info["bytes"] = 2 * (query.nbytes + key.nbytes)
    benchmark.extra_info["flops"] = 3 * (query.numel() + key.numel())
    if implementation == "transformers":
        benchmark(apply_rotary_pos_emb, query, key, cos, sin)
    else:
        benchmark(eagle_kernels.rope, query, key, cos, sin, backend=implementation)
