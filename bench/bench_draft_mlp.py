"""draft_mlp: the gated MLP and its residual, against torch's pieces."""

import pytest
import torch
from draft_head import smollm2_head
from test_draft_mlp import make_case
from torch.nn.functional import linear, silu

import eagle_kernels


def in_torch(normed, gate_up_weight, down_weight, residual):
    gate, up = linear(normed, gate_up_weight).chunk(2, dim=-1)
    return linear(silu(gate) * up, down_weight) + residual


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "torch"])
def bench_draft_mlp(benchmark, implementation, rows, dtype):
    case = make_case(smollm2_head(dtype, rows))
    benchmark.extra_info["bytes"] = sum(tensor.nbytes for tensor in case) + case[3].nbytes
    benchmark.extra_info["flops"] = 2 * rows * (case[1].numel() + case[2].numel())
    if implementation == "torch":
        benchmark(in_torch, *case)
    else:
        benchmark(eagle_kernels.draft_mlp, *case, backend=implementation)
