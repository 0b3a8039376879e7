"""build_tree: the best 24 or 60 nodes of a history of depth 8."""

import pytest
import torch
from trees import grown_history

import eagle_kernels


@pytest.mark.parametrize(("batch", "branching", "num_nodes"), [(1, 4, 24), (1, 10, 60), (32, 10, 60)])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_build_tree(benchmark, backend, batch, branching, num_nodes):
    history = grown_history(batch, branching, 8)
    context_len = torch.full((batch,), 1000, dtype=torch.int32)
    benchmark.extra_info["bytes"] = 12 * history[0].numel() + 28 * batch * num_nodes
    benchmark.extra_info["flops"] = 0
    benchmark(eagle_kernels.build_tree, *history, context_len, num_nodes, backend=backend)
