"""lm_head_topk: the output head and its top ten of 49152 tokens, against torch's pieces."""

import pytest
import torch
from draft_head import smollm2_head
from test_lm_head_topk import make_case
from torch.nn.functional import linear, rms_norm

import eagle_kernels


def in_torch(hidden_states, norm_weight, eps, lm_head_weight, k, d2t):
    normed = rms_norm(hidden_states, norm_weight.shape, norm_weight, eps)
    return linear(normed, lm_head_weight).float().log_softmax(-1).topk(k)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "torch"])
def bench_lm_head_topk(benchmark, implementation, rows, dtype):
    case = make_case(smollm2_head(dtype, rows), k=10)
    benchmark.extra_info["bytes"] = case[3].nbytes
    benchmark.extra_info["flops"] = 2 * rows * case[3].numel()
    if implementation == "torch":
        benchmark(in_torch, *case)
    else:
        benchmark(eagle_kernels.lm_head_topk, *case, backend=implementation)
