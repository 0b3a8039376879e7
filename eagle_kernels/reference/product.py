"""Rows times a weight matrix in plain torch, what every projection of the draft head is built on."""

from torch import Tensor


def product(input: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """input @ weight^T in float32; an fp8 weight has a scale per output, which its sum is multiplied by."""
    sums = input.float() @ weight.float().T
    return sums if scale is None else sums * scale
