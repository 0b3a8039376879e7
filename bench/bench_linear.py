"""linear against torch: the projections of a 576-wide target, one weight after another as in a forward pass."""

import itertools

import pytest
import torch

import eagle_kernels

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
IMPLEMENTATIONS = {
    "cpp": eagle_kernels.linear,
    "torch": torch.nn.functional.linear,
    "reference": lambda input, weight: eagle_kernels.linear(input, weight, backend="reference"),
}
WEIGHT_BYTES = 100 << 20  # in turn, so that each comes from memory and not from a core's cache


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("rows", [1, 4, 10, 24, 60])
@pytest.mark.parametrize("inner, outputs", [(576, 1536), (1536, 576)])
@pytest.mark.parametrize("dtype", DTYPES)
def bench_linear(benchmark, dtype, inner, outputs, rows, implementation):
    dtype = DTYPES[dtype]
    size = inner * outputs * dtype.itemsize
    weights = itertools.cycle(torch.randn(outputs, inner, dtype=dtype) for _ in range(WEIGHT_BYTES // size))
    input = torch.randn(rows, inner, dtype=dtype)
    run = IMPLEMENTATIONS[implementation]
    benchmark.extra_info["bytes"] = size + rows * (inner + outputs) * dtype.itemsize
    benchmark.extra_info["flops"] = 2 * rows * inner * outputs
    benchmark(lambda: run(input, next(weights)))
