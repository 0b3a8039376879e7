"""rms_norm in plain torch."""

import torch
from torch import Tensor


def rms_norm(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = input.float()
    normalised = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return weight * normalised.to(input.dtype)
