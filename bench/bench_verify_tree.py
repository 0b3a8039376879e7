"""verify_tree: walks over batches of trees, against plain torch."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("batch, nodes", [(1, 60), (64, 60)])
def bench_verify_tree(benchmark, backend, batch, nodes):
    parent = torch.arange(nodes, dtype=torch.int32).sub(1).div(4, rounding_mode="floor").expand(batch, -1).contiguous()
    draft_tokens = torch.randint(0, 3, (batch, nodes), dtype=torch.int32)
    target_tokens = torch.randint(0, 3, (batch, nodes), dtype=torch.int32)
    benchmark.extra_info |= {"bytes": 3 * parent.nbytes, "flops": 0}
    benchmark(eagle_kernels.verify_tree, draft_tokens, parent, target_tokens, 8, backend=backend)
