"""A weight matrix of a draft head as it is served: in the dtype of the activations, or in fp8 with its scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import eagle_kernels

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Matrix:
    """What the ops take for one weight.

    weight: [outputs, inner]
    scale:  [outputs] float32 where the weight is fp8, else None
    """

    weight: Tensor
    scale: Tensor | None = None

    @classmethod
    def served(cls, weight: Tensor, dtype: torch.dtype, device: torch.device) -> Matrix:
        """A stored weight in the dtype it is served in; fp8 is quantised from what is stored."""
        weight = weight.detach().to(device)
        if dtype == FP8:
            return cls(*eagle_kernels.quantize_fp8(weight))
        return cls(weight.to(dtype).contiguous())

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., inner] @ weight^T + bias."""
        return eagle_kernels.linear(x, self.weight, bias, self.scale)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + (0 if self.scale is None else self.scale.nbytes)
