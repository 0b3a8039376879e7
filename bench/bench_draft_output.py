"""draft_output: projection, residual and norm, against torch's pieces."""

import pytest
import torch
from draft_head import smollm2_head
from test_draft_output import make_case
from torch.nn.functional import linear, rms_norm

import eagle_kernels


def in_torch(attention, o_weight, residual, norm_weight, eps):
    hidden = linear(attention, o_weight) + residual
    return hidden, rms_norm(hidden, norm_weight.shape, norm_weight, eps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "torch"])
def bench_draft_output(benchmark, implementation, rows, dtype):
    case = make_case(smollm2_head(dtype, rows))
    benchmark.extra_info["bytes"] = case[1].nbytes + case[0].nbytes + 3 * case[2].nbytes
    benchmark.extra_info["flops"] = 2 * rows * case[1].numel()
    if implementation == "torch":
        benchmark(in_torch, *case)
    else:
        benchmark(eagle_kernels.draft_output, *case, backend=implementation)
