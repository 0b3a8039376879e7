"""draft_input in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_rows, block_of, warps_for
from eagle_kernels.triton.rms_norm import normalise_row


# grid: (rows, 2): the token's embedding goes left, the hidden state right
@triton.jit
def draft_input_kernel(
    token_ptr,
    hidden_ptr,
    embed_ptr,
    embed_norm_ptr,
    hidden_norm_ptr,
    output_ptr,
    width,
    eps,
    hidden_stride,
    embed_stride,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    output_ptr += row * 2 * width
    if tl.program_id(1) == 0:
        token = tl.load(token_ptr + row).to(tl.int64)
        normalise_row(embed_ptr + token * embed_stride, embed_norm_ptr, output_ptr, width, eps, BLOCK)
    else:
        normalise_row(hidden_ptr + row * hidden_stride, hidden_norm_ptr, output_ptr + width, width, eps, BLOCK)


def draft_input(
    token_ids: Tensor,
    hidden_states: Tensor,
    embed_weight: Tensor,
    embed_norm_weight: Tensor,
    hidden_norm_weight: Tensor,
    eps: float,
) -> Tensor:
    hidden, width = as_rows(hidden_states), embed_weight.shape[1]
    output = torch.empty(*token_ids.shape, 2 * width, dtype=hidden.dtype, device=hidden.device)
    block = block_of(width)
    if output.numel():
        draft_input_kernel[(hidden.shape[0], 2)](
            token_ids.contiguous(),
            hidden,
            embed_weight,
            embed_norm_weight,
            hidden_norm_weight,
            output,
            width,
            eps,
            hidden.stride(0),
            embed_weight.stride(0),
            BLOCK=block,
            num_warps=warps_for(block),
        )
    return output
