"""topk_logprobs: the draft head's rows, against torch's log_softmax and topk."""

from torch import Tensor

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    logits = make.normal(s.batch * s.topk, s.draft_vocab_size, scale=3.0)
    return Case((logits, s.topk), nbytes(logits) + 8 * len(logits) * s.topk, 3 * logits.numel(), in_torch)


def in_torch(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return logits.float().log_softmax(-1).topk(k)


bench_topk_logprobs = op_benchmark("topk_logprobs", case, ("batch", "topk"))
