"""draft_mlp in Triton: gate and up in one kernel, then the projection with its residual."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_elements, as_rows, row_block, tuned
from eagle_kernels.triton.common.products import (
    PRODUCT_CONFIGS,
    fitting_products,
    paired_rows,
    split_pairs,
    stream_products,
)
from eagle_kernels.triton.linear import project


# grid: (blocks of BLOCK_N / 2 activations, blocks of rows)
@tuned(PRODUCT_CONFIGS, key=["activations", "width", "BLOCK_M"], fitting=fitting_products)
@triton.jit
def gate_up_kernel(
    input_ptr,
    weight_ptr,
    scale_ptr,
    output_ptr,
    rows,
    activations,
    width,
    input_stride,
    weight_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0).to(tl.int64) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    in_rows, in_columns = row < rows, column < activations
    # gate row c and up row c + activations side by side: one stream of products yields both
    weight_row = paired_rows(column, activations, BLOCK_N)
    sums = stream_products(
        input_ptr,
        row,
        in_rows,
        input_stride,
        weight_ptr,
        scale_ptr,
        weight_row,
        paired_rows(column, 0, BLOCK_N) < activations,
        weight_stride,
        width,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    gate, up = split_pairs(sums, BLOCK_M, BLOCK_N)
    activation = gate / (1 + tl.exp(-gate)) * up
    inside = in_rows[:, None] & in_columns[None, :]
    tl.store(
        output_ptr + row[:, None] * activations + column[None, :],
        activation.to(output_ptr.dtype.element_ty),
        mask=inside,
    )


def draft_mlp(
    normed: Tensor,
    gate_up_weight: Tensor,
    down_weight: Tensor,
    residual: Tensor,
    gate_up_scale: Tensor | None = None,
    down_scale: Tensor | None = None,
) -> Tensor:
    x = as_rows(normed)
    rows, width = x.shape
    activations = down_weight.shape[1]
    activation = torch.empty(*normed.shape[:-1], activations, dtype=x.dtype, device=x.device)
    if activation.numel():
        block_m = row_block(rows)
        gate_up_kernel[lambda meta: (triton.cdiv(activations, meta["BLOCK_N"] // 2), triton.cdiv(rows, block_m))](
            x,
            as_elements(gate_up_weight),
            gate_up_scale,
            activation,
            rows,
            activations,
            width,
            x.stride(0),
            gate_up_weight.stride(0),
            BLOCK_M=block_m,
        )
    return project(activation, down_weight, down_scale, None, residual)
