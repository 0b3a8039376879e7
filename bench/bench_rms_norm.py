"""rms_norm: rows of a tree in the target, against torch's own function."""

from torch import Tensor
from torch.nn import functional

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    input, weight = make.normal(s.batch, s.num_nodes, s.hidden_size), make.normal(s.hidden_size) + 1
    return Case((input, weight, 1e-5), 2 * nbytes(input) + nbytes(weight), 4 * input.numel(), in_torch)


def in_torch(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(input, weight.shape, weight, eps)


bench_rms_norm = op_benchmark("rms_norm", case, ("batch", "num_nodes"))
