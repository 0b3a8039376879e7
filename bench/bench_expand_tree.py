"""expand_tree: one level of growth at the sizes of EAGLE-2 and -3 (K = 10) and of a small head (K = 4)."""

import pytest
import torch
from trees import empty_history

import eagle_kernels


@pytest.mark.parametrize(("batch", "branching"), [(1, 4), (1, 10), (32, 10)])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_expand_tree(benchmark, backend, batch, branching):
    history = empty_history(batch, 1 + branching + branching**2)
    scores = -torch.rand(batch, branching).sort(dim=1).values
    slots = torch.arange(1, 1 + branching, dtype=torch.int32).repeat(batch, 1)
    mask = torch.ones(batch, branching, 1, dtype=torch.int64)
    logprobs = -torch.rand(batch, branching, branching)
    token_ids = torch.randint(0, 50000, logprobs.shape, dtype=torch.int32)
    benchmark.extra_info["bytes"] = 20 * logprobs.numel()
    benchmark.extra_info["flops"] = logprobs.numel()
    level = (scores, slots, mask, logprobs, token_ids, *history, 1 + branching, branching)
    benchmark(eagle_kernels.expand_tree, *level, backend=backend)
