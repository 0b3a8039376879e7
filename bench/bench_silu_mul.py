"""silu_mul: the gate of a target's MLP over a tree's rows, against torch's two steps."""

from torch import Tensor
from torch.nn.functional import silu

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    gate, up = (make.normal(s.batch, s.num_nodes, s.intermediate_size) for _ in range(2))
    return Case((gate, up), 3 * nbytes(gate), 15 * gate.numel(), in_torch)


def in_torch(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up


bench_silu_mul = op_benchmark("silu_mul", case, ("batch", "num_nodes"))
