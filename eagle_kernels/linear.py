"""linear: a matrix product for few rows, bound by one pass over the weight."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    weight_scale: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Returns input @ weight^T + bias, accumulated in float32 and rounded once.

    An fp8 weight stands for weight_scale[:, None] * weight: its elements convert exactly, and the float32 sum of each
    output is multiplied by the scale. `quantize_fp8` makes both.

    The C++ kernel is row-invariant on the CPU: a row of the output has the same bits whatever other rows are in the
    batch, and on any number of threads. A token verified in a tree then scores as it does when decoded alone.
    Where the CPU has dot products of bfloat16 (AVX-512 BF16), subnormal bfloat16 numbers count as zero.

    input:        [..., K] float32, bfloat16 or float16; rows may be strided views
    weight:       [O, K] same dtype or finite float8_e4m3fn, as in torch.nn.Linear
    bias:         [O] same dtype as input, or None
    weight_scale: [O] float32 with a float8_e4m3fn weight, else None
    returns       [..., O] same dtype as input, contiguous
    """
    return resolve("linear", input, backend)(input, weight, bias, weight_scale)


@torch.library.register_fake("eagle_kernels::linear")
def _(input: Tensor, weight: Tensor, bias: Tensor | None = None, weight_scale: Tensor | None = None) -> Tensor:
    return input.new_empty(*input.shape[:-1], weight.shape[0])
