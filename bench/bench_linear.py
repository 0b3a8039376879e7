"""linear: the target's gate projection over a tree's rows, against torch's."""

from torch import Tensor

from bench.case import WIDE_AND_FP8, Case, also_in_fp8, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker, rows: str) -> Case:
    num_rows = s.batch * (1 if rows == "root only" else s.num_nodes)
    input, weight = make.normal(num_rows, s.hidden_size), make.weight(s.intermediate_size, s.hidden_size)
    num_bytes = nbytes(input, weight) + num_rows * s.intermediate_size * input.itemsize
    return Case((input, weight), num_bytes, 2 * num_rows * weight.numel(), in_torch)


def in_torch(input: Tensor, weight: Tensor) -> Tensor:
    return input @ weight.mT


VARIANTS = {
    ", ".join(filter(None, (rows, kind))): {"rows": rows} | options
    for rows in ("root only", "tree")
    for kind, options in WIDE_AND_FP8.items()
}
bench_linear = op_benchmark("linear", also_in_fp8("linear", case), ("batch", "num_nodes"), VARIANTS)
