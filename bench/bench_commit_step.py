"""commit_step: the hidden states of three layers of an 8B model, and of a small one."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize(("batch", "hidden"), [(1, 3 * 576), (1, 3 * 4096), (32, 3 * 4096)])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_commit_step(benchmark, backend, batch, hidden):
    num_nodes, depth = 60, 8
    draft_tokens = torch.randint(0, 50000, (batch, num_nodes), dtype=torch.int32)
    accept_index = torch.tensor([[0, 2, 9, 21, -1, -1, -1, -1, -1]], dtype=torch.int32).repeat(batch, 1)
    accept_length = torch.full((batch,), 3, dtype=torch.int32)
    hidden_states = torch.randn(batch, num_nodes, hidden).bfloat16()
    benchmark.extra_info["bytes"] = 2 * hidden * batch * (4 + depth + 1)
    benchmark.extra_info["flops"] = 0
    path = (draft_tokens, accept_index, accept_length, accept_length)
    benchmark(eagle_kernels.commit_step, *path, hidden_states, accept_length, backend=backend)
