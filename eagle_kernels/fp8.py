"""Weights in fp8: half the bytes of bfloat16, for draft heads, where rounding costs acceptance but never the text."""

import torch
from torch import Tensor


def quantize_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the fp8 (e4m3) matrix nearest to a weight, and a scale per output: weight ~ scale[:, None] * weight8.

    The largest element of a row becomes +-448, the largest e4m3 number; a row of zeros stays one. e4m3 has four
    significant bits (Micikevicius et al. 2022, arXiv:2209.05433): elements down to 2^-14 of a row's largest are off by
    1/16 of themselves at most.

    weight: [O, K] float32, bfloat16 or float16, finite
    returns weight8 [O, K] float8_e4m3fn, contiguous, and scale [O] float32

    Raises ValueError for a weight that is not a matrix or holds NaN or infinity.
    """
    if weight.dim() != 2:
        raise ValueError(f"quantize_fp8: weight must be [O, K], got {list(weight.shape)}.")
    if not weight.isfinite().all():
        raise ValueError("quantize_fp8: weight holds NaN or infinity, which fp8 weights cannot: give finite numbers.")
    largest = torch.nn.functional.pad(weight.abs(), (0, 1)).amax(dim=1).float()  # amax of no elements would raise
    scale = (largest / torch.finfo(torch.float8_e4m3fn).max).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight.float() / scale[:, None]).to(torch.float8_e4m3fn), scale
