"""linear in plain torch, accumulated in float32."""

from torch import Tensor

from eagle_kernels.reference.product import product


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, weight_scale: Tensor | None = None) -> Tensor:
    output = product(input, weight, weight_scale)
    if bias is not None:
        output = output + bias.float()
    return output.to(input.dtype)
