"""A weight matrix as the ops take it: in the dtype of the activations, or in fp8 with its scales."""

from __future__ import annotations

from collections.abc import Sequence
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


def side_by_side(parameters: Sequence[Tensor]) -> Tensor:
    """One tensor [sum of lengths, ...] that the parameters are consecutive rows of, so that one product reads them all.

    Where they do not follow each other in memory, they are moved there, once: each stays the same parameter with the
    same values, and the memory that they had is given back.
    """
    lengths = [len(parameter) for parameter in parameters]
    first = parameters[0].detach()
    if not follow_each_other(parameters):
        with torch.inference_mode(parameters[0].is_inference()), torch.no_grad():
            first = torch.cat([parameter.detach() for parameter in parameters])
            for parameter, rows in zip(parameters, first.split(lengths), strict=True):
                parameter.data = rows
    return first.as_strided((sum(lengths), *first.shape[1:]), first.stride())


def follow_each_other(parameters: Sequence[Tensor]) -> bool:
    """Whether each tensor begins where the one before ends."""
    storage, end = parameters[0].untyped_storage()._cdata, parameters[0].storage_offset()
    for parameter in parameters:
        if parameter.untyped_storage()._cdata != storage or parameter.storage_offset() != end:
            return False
        if not parameter.is_contiguous():
            return False
        end += parameter.numel()
    return True
