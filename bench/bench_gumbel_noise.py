"""gumbel_noise: one row of a vocabulary and a tree of them, against plain torch."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("nodes, vocabulary", [(1, 49152), (8, 151936)])
def bench_gumbel_noise(benchmark, backend, nodes, vocabulary):
    position_ids = torch.arange(nodes, dtype=torch.int32)[None]
    benchmark.extra_info |= {"bytes": 4 * nodes * vocabulary, "flops": 60 * nodes * vocabulary}
    benchmark(eagle_kernels.gumbel_noise, torch.tensor([7]), position_ids, vocabulary, backend=backend)
