"""draft_output: projection, residual and norm, against torch's pieces."""

from torch import Tensor
from torch.nn.functional import linear, rms_norm

from bench.case import WIDE_AND_FP8, Case, also_in_fp8, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    attention = make.normal(s.batch, s.topk, s.num_heads * s.head_dim)
    weight, residual = make.weight(s.hidden_size, attention.shape[-1]), make.normal(s.batch, s.topk, s.hidden_size)
    arguments = (attention, weight, residual, make.normal(s.hidden_size) + 1, 1e-5)
    num_bytes = nbytes(attention, weight) + 3 * nbytes(residual)
    return Case(arguments, num_bytes, 2 * s.batch * s.topk * weight.numel(), in_torch)


def in_torch(
    attention: Tensor, o_weight: Tensor, residual: Tensor, norm_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    hidden = linear(attention, o_weight) + residual
    return hidden, rms_norm(hidden, norm_weight.shape, norm_weight, eps)


bench_draft_output = op_benchmark("draft_output", also_in_fp8("draft_output", case), ("batch", "topk"), WIDE_AND_FP8)
