"""topk_logprobs: the draft head's rows, against plain torch and torch's own log_softmax and topk."""

import pytest
import torch

import eagle_kernels


def torch_topk(logits: torch.Tensor, k: int, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    return logits.float().log_softmax(-1).topk(k)


@pytest.mark.parametrize("implementation", ["cpp", "reference", "torch"])
@pytest.mark.parametrize("rows, vocabulary, k", [(1, 32000, 10), (10, 32000, 10), (10, 49152, 10), (8, 151936, 8)])
def bench_topk_logprobs(benchmark, implementation, rows, vocabulary, k):
    logits = torch.randn(rows, vocabulary).mul(3).bfloat16()
    benchmark.extra_info |= {"bytes": logits.nbytes, "flops": 3 * logits.numel()}
    op = torch_topk if implementation == "torch" else eagle_kernels.topk_logprobs
    benchmark(op, logits, k, backend=implementation)
