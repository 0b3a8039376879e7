"""compact_kv: four accepted rows in every layer of a small and of an 8B model."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize(("layers", "kv_heads", "head_dim"), [(30, 3, 64), (28, 8, 128), (32, 8, 128)])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_compact_kv(benchmark, backend, layers, kv_heads, head_dim):
    caches = [torch.zeros(1, kv_heads, 1100, head_dim, dtype=torch.bfloat16) for _ in range(2 * layers)]
    accept_index = torch.tensor([[0, 2, 9, 21, -1, -1]], dtype=torch.int32)
    accept_length, context_len = torch.tensor([3], dtype=torch.int32), torch.tensor([1000], dtype=torch.int32)
    benchmark.extra_info["bytes"] = 2 * 3 * len(caches) * kv_heads * head_dim * 2
    benchmark.extra_info["flops"] = 0
    benchmark(eagle_kernels.compact_kv, caches, accept_index, accept_length, context_len, backend=backend)
