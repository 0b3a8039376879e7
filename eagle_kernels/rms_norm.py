"""rms_norm: root mean square normalisation, rounded as transformers' LlamaRMSNorm."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def rms_norm(input: Tensor, weight: Tensor, eps: float, *, backend: str | None = None) -> Tensor:
    """Returns weight * round(input / sqrt(mean(input^2) + eps)), normalised in float32 over the last dimension.

    The normalised value is rounded to the input's dtype before the product with the weight, as in transformers'
    LlamaRMSNorm (formula: Zhang and Sennrich 2019, arXiv:1910.07467).

    input:  [..., H] float32, bfloat16 or float16; rows may be strided views
    weight: [H] same dtype
    eps:    added to the mean of squares
    returns [..., H] same dtype, contiguous
    """
    return resolve("rms_norm", input, backend)(input, weight, eps)


@torch.library.register_fake("eagle_kernels::rms_norm")
def _(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    return input.new_empty(input.shape)
