"""verify_rejection: a tree of sampled children over a language model's vocabulary, against plain torch."""

import pytest
import torch

import eagle_kernels


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("traversal", [False, True])
@pytest.mark.parametrize("nodes, vocabulary", [(6, 49152), (32, 49152), (60, 151936)])
def bench_verify_rejection(benchmark, backend, traversal, nodes, vocabulary):
    parent = torch.arange(nodes, dtype=torch.int32).sub(1).div(3, rounding_mode="floor")[None]
    node_ids = torch.arange(nodes, dtype=torch.int32)[None]
    target_logits = torch.randn(1, nodes, vocabulary) - 1.6 * (torch.rand(1, nodes, vocabulary) * vocabulary + 1).log()
    draft_logits = (target_logits + 0.5 * torch.randn_like(target_logits)).bfloat16()
    request = {
        "context_len": torch.tensor([9], dtype=torch.int32),
        "seed": torch.tensor([7]),
        "temperature": torch.tensor([1.0]),
        "top_k": torch.tensor([0], dtype=torch.int32),
        "top_p": torch.tensor([1.0]),
        "min_p": torch.tensor([0.0]),
    }
    num_children = torch.tensor([[int((parent == node).sum()) for node in range(nodes)]], dtype=torch.int32)
    children, _ = eagle_kernels.sample_children(draft_logits, node_ids, num_children, **request, max_children=3)
    draft_tokens = torch.zeros(1, nodes, dtype=torch.int32)
    for node in range(1, nodes):
        draft_tokens[0, node] = children[0, (node - 1) // 3, (node - 1) % 3]
    benchmark.extra_info |= {"bytes": target_logits.nbytes + draft_logits.nbytes, "flops": 0}
    benchmark(
        eagle_kernels.verify_rejection, target_logits, draft_logits, draft_tokens, parent, **request,
        traversal=traversal, backend=backend,
    )  # fmt: skip
