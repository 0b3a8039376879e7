"""sample_children: a level of nodes over the draft's vocabulary, against plain torch."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("nodes, vocabulary, children", [(1, 32000, 8), (8, 32000, 8), (8, 49152, 4)])
def bench_sample_children(benchmark, backend, nodes, vocabulary, children):
    logits = (torch.randn(1, nodes, vocabulary) - 1.6 * (torch.rand(1, nodes, vocabulary) * vocabulary + 1).log()) + 12
    node_ids = torch.arange(nodes, dtype=torch.int32)[None]
    request = {
        "context_len": torch.tensor([9], dtype=torch.int32),
        "seed": torch.tensor([7]),
        "temperature": torch.tensor([1.0]),
        "top_k": torch.tensor([0], dtype=torch.int32),
        "top_p": torch.tensor([1.0]),
        "min_p": torch.tensor([0.0]),
    }
    benchmark.extra_info |= {"bytes": logits.nbytes, "flops": 0}
    benchmark(
        eagle_kernels.sample_children, logits, node_ids, torch.full_like(node_ids, children), **request,
        max_children=children, backend=backend,
    )  # fmt: skip
