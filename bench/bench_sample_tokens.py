"""sample_tokens: greedy, plain and filtered sampling over realistic vocabularies, against plain torch."""

import pytest
import torch

import eagle_kernels

REQUESTS = {
    "greedy": (0.0, 0, 1.0, 0.0),
    "temperature": (1.0, 0, 1.0, 0.0),
    "top_k": (1.0, 50, 1.0, 0.0),
    "top_p": (1.0, 0, 0.9, 0.0),
    "min_p": (1.0, 0, 1.0, 0.05),
}


def language_model_logits(rows: int, vocabulary: int) -> torch.Tensor:
    """Mostly noise around a Zipf law: about the entropy of a language model's rows."""
    rank = torch.rand(rows, vocabulary).argsort(-1) + 1
    return torch.randn(rows, vocabulary) - 1.6 * rank.log() + 12


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("sampling", REQUESTS)
@pytest.mark.parametrize("nodes, vocabulary", [(1, 49152), (32, 49152), (60, 151936)])
def bench_sample_tokens(benchmark, backend, sampling, nodes, vocabulary):
    logits = language_model_logits(nodes, vocabulary)[None].bfloat16()
    temperature, top_k, top_p, min_p = REQUESTS[sampling]
    args = (
        torch.arange(nodes, dtype=torch.int32)[None],
        torch.tensor([7]),
        torch.tensor([temperature]),
        torch.tensor([top_k], dtype=torch.int32),
        torch.tensor([top_p]),
        torch.tensor([min_p]),
    )
    benchmark.extra_info |= {"bytes": logits.nbytes, "flops": 0}
    benchmark(eagle_kernels.sample_tokens, logits, *args, backend=backend)
