"""silu_mul: the gate of a 1536-wide MLP, against torch's two steps."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 10, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference"])
def bench_silu_mul(benchmark, implementation, rows, dtype):
    gate, up = torch.randn(1, rows, 1536).to(dtype), torch.randn(1, rows, 1536).to(dtype)
    benchmark.extra_info["bytes"] = 3 * gate.nbytes
    benchmark.extra_info["flops"] = 15 * gate.numel()
    benchmark(eagle_kernels.silu_mul, gate, up, backend=implementation)
