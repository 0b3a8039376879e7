"""compact_kv: an accepted path moved in all layers of a cache at once, against one index per layer in plain torch."""

import pytest
import torch

import eagle_kernels

# layers, key-value heads, head width: SmolLM2-135M, Llama-3.1-8B
SHAPES = [(30, 3, 64), (32, 8, 128)]


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("layers, heads, width", SHAPES)
def bench_compact_kv(benchmark, backend, layers, heads, width):
    caches = [torch.randn(1, heads, 1024, width).bfloat16() for _ in range(2 * layers)]
    accept_index = torch.tensor([[0, 2, 5, 9, 14]], dtype=torch.int32)
    accept_length = torch.tensor([4], dtype=torch.int32)
    context_len = torch.tensor([900], dtype=torch.int32)
    benchmark.extra_info |= {"bytes": 2 * len(caches) * heads * 4 * width * 2, "flops": 0}
    benchmark(eagle_kernels.compact_kv, caches, accept_index, accept_length, context_len, backend=backend)
