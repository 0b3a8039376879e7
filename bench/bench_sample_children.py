"""sample_children: a level of nodes draws its children, against log_softmax, torch's noise and topk."""

import torch
from torch import Tensor

from bench.case import Case, nbytes, op_benchmark
from bench.sampling_cases import language_model_logits, request_settings
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    logits = language_model_logits(make, s.batch, s.topk, s.draft_vocab_size)
    nodes = make.tensor(torch.arange(s.topk).repeat(s.batch, 1))
    context_len = make.tensor([s.context_len] * s.batch)
    requests = request_settings(make, s.batch, "temperature")
    arguments = (logits, nodes, torch.full_like(nodes, s.topk), context_len, *requests, s.topk)
    return Case(arguments, nbytes(logits) + 8 * nodes.numel() * s.topk, 3 * logits.numel(), in_torch)


def in_torch(
    logits: Tensor,
    node_ids: Tensor,
    num_children: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    max_children: int,
) -> tuple[Tensor, Tensor]:
    logprobs = (logits.float() / temperature[:, None, None]).log_softmax(-1)
    tokens = (logprobs - torch.empty_like(logprobs).exponential_().log()).topk(max_children).indices
    return tokens, logprobs.gather(-1, tokens)


bench_sample_children = op_benchmark("sample_children", case, ("batch", "topk"))
