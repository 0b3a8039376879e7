"""linear: a matrix product for few rows, bound by one pass over the weight."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """Returns input @ weight^T + bias, accumulated in float32 and rounded once.

    The C++ kernel is row-invariant on the CPU: a row of the output has the same bits whatever other rows are in the
    batch, and on any number of threads. A token verified in a tree then scores as it does when decoded alone.

    input:  [..., K] float32, bfloat16 or float16; rows may be strided views
    weight: [O, K] same dtype, as in torch.nn.Linear
    bias:   [O] same dtype, or None
    returns [..., O] same dtype, contiguous
    """
    return resolve("linear", input, backend)(input, weight, bias)


@torch.library.register_fake("eagle_kernels::linear")
def _(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return input.new_empty(*input.shape[:-1], weight.shape[0])
