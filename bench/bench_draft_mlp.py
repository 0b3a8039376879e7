"""draft_mlp: the head's gated MLP and its residual, against torch's pieces."""

from torch import Tensor
from torch.nn.functional import linear, silu

from bench.case import WIDE_AND_FP8, Case, also_in_fp8, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    hidden = make.normal(s.batch, s.topk, s.hidden_size)
    gate_up, down = make.weight(2 * s.intermediate_size, s.hidden_size), make.weight(s.hidden_size, s.intermediate_size)
    flops = 2 * s.batch * s.topk * (gate_up.numel() + down.numel())
    return Case((hidden, gate_up, down, hidden), nbytes(gate_up, down) + 3 * nbytes(hidden), flops, in_torch)


def in_torch(normed: Tensor, gate_up_weight: Tensor, down_weight: Tensor, residual: Tensor) -> Tensor:
    gate, up = linear(normed, gate_up_weight).chunk(2, dim=-1)
    return linear(silu(gate) * up, down_weight) + residual


bench_draft_mlp = op_benchmark("draft_mlp", also_in_fp8("draft_mlp", case), ("batch", "topk"), WIDE_AND_FP8)
