"""lm_head_topk: the head's norm, output projection and top-k, against torch's pieces."""

from torch import Tensor
from torch.nn.functional import linear, rms_norm

from bench.case import WIDE_AND_FP8, Case, also_in_fp8, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    hidden, weight = make.normal(s.batch, s.topk, s.hidden_size), make.weight(s.draft_vocab_size, s.hidden_size)
    arguments = (hidden, make.normal(s.hidden_size) + 1, 1e-5, weight, s.topk)
    num_bytes = nbytes(weight) + 2 * nbytes(hidden) + 8 * s.batch * s.topk**2
    return Case(arguments, num_bytes, 2 * s.batch * s.topk * weight.numel(), in_torch)


def in_torch(
    hidden_states: Tensor, norm_weight: Tensor, eps: float, weight: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    normed = rms_norm(hidden_states, norm_weight.shape, norm_weight, eps)
    return normed, *linear(normed, weight).float().log_softmax(-1).topk(k)


bench_lm_head_topk = op_benchmark("lm_head_topk", also_in_fp8("lm_head_topk", case), ("batch", "topk"), WIDE_AND_FP8)
