"""silu_mul in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_rows

BLOCK = 1024


# grid: (rows, blocks of columns)
@triton.jit
def silu_mul_kernel(gate_ptr, up_ptr, output_ptr, width, gate_stride, up_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_ptr + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    # silu is rounded on its own, as eager mode does
    activated = (gate / (1 + tl.exp(-gate))).to(output_ptr.dtype.element_ty).to(tl.float32)
    tl.store(output_ptr + row * width + column, (activated * up).to(output_ptr.dtype.element_ty), mask=inside)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    gates, ups = as_rows(gate), as_rows(up)
    output = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    rows, width = gates.shape
    if output.numel():
        silu_mul_kernel[(rows, triton.cdiv(width, BLOCK))](
            gates, ups, output, width, gates.stride(0), ups.stride(0), BLOCK=BLOCK
        )
    return output
