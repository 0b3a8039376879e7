"""rms_norm in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_rows, block_of, warps_for


@triton.jit
def normalise_row(input_ptr, weight_ptr, output_ptr, width, eps, BLOCK: tl.constexpr):
    """weight * round(x / sqrt(mean(x^2) + eps)) for one row of `width` elements."""
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(input_ptr + column, mask=inside, other=0.0).to(tl.float32)
    scaled = x * tl.rsqrt(tl.sum(x * x) / width + eps)
    # The model's own order of rounding: first the normalised value, then the product.
    rounded = scaled.to(output_ptr.dtype.element_ty).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(output_ptr + column, (weight * rounded).to(output_ptr.dtype.element_ty), mask=inside)


# grid: (rows)
@triton.jit
def rms_norm_kernel(input_ptr, weight_ptr, output_ptr, width, eps, input_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    normalise_row(input_ptr + row * input_stride, weight_ptr, output_ptr + row * width, width, eps, BLOCK)


def rms_norm(input: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows = as_rows(input)
    output = torch.empty(input.shape, dtype=input.dtype, device=input.device)
    block = block_of(rows.shape[1])
    if rows.numel():
        rms_norm_kernel[(rows.shape[0],)](
            rows, weight, output, rows.shape[1], eps, rows.stride(0), BLOCK=block, num_warps=warps_for(block)
        )
    return output
