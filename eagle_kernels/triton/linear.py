"""linear in Triton, with an optional residual for the draft head's projections."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_elements, as_rows, row_block, tuned
from eagle_kernels.triton.common.products import PRODUCT_CONFIGS, fitting_products, stream_products


# grid: (blocks of outputs, blocks of rows)
@tuned(PRODUCT_CONFIGS, key=["outputs", "width", "BLOCK_M"], fitting=fitting_products)
@triton.jit
def linear_kernel(
    input_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    residual_ptr,
    output_ptr,
    rows,
    outputs,
    width,
    input_stride,
    weight_stride,
    residual_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_rows, in_columns = row < rows, column < outputs
    sums = stream_products(
        input_ptr,
        row,
        in_rows,
        input_stride,
        weight_ptr,
        scale_ptr,
        column,
        in_columns,
        weight_stride,
        width,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    inside = in_rows[:, None] & in_columns[None, :]
    if bias_ptr is not None:
        sums += tl.load(bias_ptr + column, mask=in_columns, other=0.0).to(tl.float32)[None, :]
    if residual_ptr is not None:
        residual = tl.load(residual_ptr + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0)
        sums += residual.to(tl.float32)
    tl.store(output_ptr + row[:, None] * outputs + column[None, :], sums.to(output_ptr.dtype.element_ty), mask=inside)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, weight_scale: Tensor | None = None) -> Tensor:
    return project(input, weight, weight_scale, bias, None)


def project(
    input: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """input @ weight^T * scale + bias + residual in float32, rounded once, to the input's dtype if `dtype` is None.

    scale, bias, residual: may be None
    """
    x, added = as_rows(input), None if residual is None else as_rows(residual)
    rows, width = x.shape
    outputs = weight.shape[0]
    output = torch.empty(*input.shape[:-1], outputs, dtype=dtype or input.dtype, device=input.device)
    if output.numel():
        block_m = row_block(rows)
        linear_kernel[lambda meta: (triton.cdiv(outputs, meta["BLOCK_N"]), triton.cdiv(rows, block_m))](
            x,
            as_elements(weight),
            scale,
            bias,
            added,
            output,
            rows,
            outputs,
            width,
            x.stride(0),
            weight.stride(0),
            0 if added is None else added.stride(0),
            BLOCK_M=block_m,
        )
    return output
