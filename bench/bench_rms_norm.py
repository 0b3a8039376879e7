"""rms_norm: rows of a 576-wide target, against transformers' module and torch's own function."""

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import eagle_kernels


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 10, 60])
@pytest.mark.parametrize("implementation", ["cpp", "reference", "transformers", "torch"])
def bench_rms_norm(benchmark, implementation, rows, dtype):
    input, module = torch.randn(1, rows, 576).to(dtype), LlamaRMSNorm(576, 1e-5).to(dtype)
    weight = module.weight.data
    benchmark.extra_info["bytes"] = 2 * input.nbytes
    benchmark.extra_info["flops"] = 4 * input.numel()
    if implementation == "transformers":
        benchmark(module, input)
    elif implementation == "torch":
        benchmark(torch.nn.functional.rms_norm, input, (576,), weight, 1e-5)
    else:
        benchmark(eagle_kernels.rms_norm, input, weight, 1e-5, backend=implementation)
