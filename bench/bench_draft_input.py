"""draft_input: embedding, two norms and their concatenation, against torch's pieces."""

import pytest
import torch
from draft_head import smollm2_head
from test_draft_input import make_case
from torch.nn.functional import rms_norm

import eagle_kernels


def in_torch(token_ids, hidden_states, embed_weight, embed_norm_weight, hidden_norm_weight, eps):
    embedding = rms_norm(embed_weight[token_ids], embed_norm_weight.shape, embed_norm_weight, eps)
    hidden = rms_norm(hidden_states, hidden_norm_weight.shape, hidden_norm_weight, eps)
    return torch.cat([embedding, hidden], dim=-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "torch"])
def bench_draft_input(benchmark, implementation, rows, dtype):
    case = make_case(smollm2_head(dtype, rows))
    benchmark.extra_info["bytes"] = 4 * case[1].nbytes
    benchmark.extra_info["flops"] = 8 * case[1].numel()
    if implementation == "torch":
        benchmark(in_torch, *case)
    else:
        benchmark(eagle_kernels.draft_input, *case, backend=implementation)
