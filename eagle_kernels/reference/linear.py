"""linear in plain torch, accumulated in float32."""

from torch import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    output = input.float() @ weight.float().T
    if bias is not None:
        output = output + bias.float()
    return output.to(input.dtype)
