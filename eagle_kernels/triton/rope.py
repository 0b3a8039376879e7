"""rope in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of


@triton.jit
def rotate_head(input_ptr, output_ptr, cos_ptr, sin_ptr, half, BLOCK: tl.constexpr):
    """(a, b) -> (a cos - b sin, b cos + a sin); products and sum are rounded one by one, as eager mode does."""
    pair = tl.arange(0, BLOCK)
    inside = pair < half
    dtype: tl.constexpr = output_ptr.dtype.element_ty
    first = tl.load(input_ptr + pair, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(input_ptr + half + pair, mask=inside, other=0.0).to(tl.float32)
    for side in tl.static_range(2):
        cos = tl.load(cos_ptr + side * half + pair, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + side * half + pair, mask=inside, other=0.0).to(tl.float32)
        straight = (second if side else first) * cos
        crossed = (first if side else -second) * sin
        rotated = straight.to(dtype).to(tl.float32) + crossed.to(dtype).to(tl.float32)
        tl.store(output_ptr + side * half + pair, rotated.to(dtype), mask=inside)


# grid: (batch * rows, query heads + key heads)
@triton.jit
def rope_kernel(
    query_ptr,
    key_ptr,
    cos_ptr,
    sin_ptr,
    query_output_ptr,
    key_output_ptr,
    num_rows,
    num_heads,
    num_kv_heads,
    half,
    query_batch_stride,
    query_head_stride,
    query_row_stride,
    key_batch_stride,
    key_head_stride,
    key_row_stride,
    BLOCK: tl.constexpr,
):
    b = (tl.program_id(0) // num_rows).to(tl.int64)
    row = tl.program_id(0) % num_rows
    head = tl.program_id(1)
    table = tl.program_id(0).to(tl.int64) * 2 * half
    if head < num_heads:
        source = query_ptr + b * query_batch_stride + head * query_head_stride + row * query_row_stride
        target = query_output_ptr + ((b * num_heads + head) * num_rows + row) * 2 * half
        rotate_head(source, target, cos_ptr + table, sin_ptr + table, half, BLOCK)
    else:
        head -= num_heads
        source = key_ptr + b * key_batch_stride + head * key_head_stride + row * key_row_stride
        target = key_output_ptr + ((b * num_kv_heads + head) * num_rows + row) * 2 * half
        rotate_head(source, target, cos_ptr + table, sin_ptr + table, half, BLOCK)


def rope(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    batch, num_heads, num_rows, head_dim = query.shape
    num_kv_heads = key.shape[1]
    query_output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    key_output = torch.empty(key.shape, dtype=key.dtype, device=key.device)
    if batch * num_rows:
        rope_kernel[(batch * num_rows, num_heads + num_kv_heads)](
            query,
            key,
            cos.contiguous(),
            sin.contiguous(),
            query_output,
            key_output,
            num_rows,
            num_heads,
            num_kv_heads,
            head_dim // 2,
            *query.stride()[:3],
            *key.stride()[:3],
            BLOCK=block_of(head_dim // 2),
            num_warps=1,
            enable_fp_fusion=False,  # products are rounded to the dtype before they are added, as transformers does
        )
    return query_output, key_output
