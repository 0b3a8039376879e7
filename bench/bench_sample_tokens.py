"""sample_tokens: one token per node, greedy, plain and filtered, against softmax and torch's exponential draws."""

import torch
from torch import Tensor

from bench.case import Case, nbytes, op_benchmark
from bench.sampling_cases import VARIANTS, filtered_law, language_model_logits, request_settings
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker, settings: str) -> Case:
    logits = language_model_logits(make, s.batch, s.num_nodes, s.vocab_size)
    positions = make.tensor(s.context_len + torch.arange(s.num_nodes).repeat(s.batch, 1))
    arguments = (logits, positions, *request_settings(make, s.batch, settings))
    ways = {"greedy": greedy, "temperature": plain, "top-k, top-p": filtered}
    return Case(arguments, nbytes(logits, positions), 2 * logits.numel(), ways[settings])


def greedy(logits: Tensor, *_: Tensor) -> Tensor:
    return logits.argmax(-1)


def plain(logits: Tensor, position_ids: Tensor, seed: Tensor, temperature: Tensor, *_: Tensor) -> Tensor:
    probs = (logits.float() / temperature[:, None, None]).softmax(-1)
    return (probs / torch.empty_like(probs).exponential_()).argmax(-1)


def filtered(
    logits: Tensor, position_ids: Tensor, seed: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, *_: Tensor
) -> Tensor:
    probs = filtered_law(logits, temperature, top_p, 50)
    return (probs / torch.empty_like(probs).exponential_()).argmax(-1)


bench_sample_tokens = op_benchmark("sample_tokens", case, ("batch", "num_nodes"), VARIANTS)
