"""silu_mul: the gate of a SwiGLU layer."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def silu_mul(gate: Tensor, up: Tensor, *, backend: str | None = None) -> Tensor:
    """Returns silu(gate) * up with silu(x) = x / (1 + exp(-x)), rounded to the dtype before the product, as torch does.

    gate:   [..., I] float32, bfloat16 or float16; rows may be strided views
    up:     [..., I] same shape and dtype; rows may be strided views
    returns [..., I] same dtype, contiguous
    """
    return resolve("silu_mul", gate, backend)(gate, up)


@torch.library.register_fake("eagle_kernels::silu_mul")
def _(gate: Tensor, up: Tensor) -> Tensor:
    return gate.new_empty(gate.shape)
