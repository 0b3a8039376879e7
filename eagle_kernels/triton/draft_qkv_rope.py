"""draft_qkv_rope in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_elements, as_rows, row_block, tuned
from eagle_kernels.triton.common.page_table import locate, page_fields
from eagle_kernels.triton.common.products import (
    PRODUCT_CONFIGS,
    fitting_products,
    paired_rows,
    split_pairs,
    stream_products,
)


@triton.jit
def store_pairs(pointers, first, second, half, inside):
    tl.store(pointers, first.to(pointers.dtype.element_ty), mask=inside)
    tl.store(pointers + half, second.to(pointers.dtype.element_ty), mask=inside)


# grid: (heads * slices of BLOCK_N / 2 rotation pairs, blocks of rows); heads: queries, keys, values
@tuned(PRODUCT_CONFIGS, key=["half", "width", "BLOCK_M"], fitting=fitting_products)
@triton.jit
def draft_qkv_rope_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    query_ptr,
    key_ptr,
    value_ptr,
    cache_row_ptr,
    page_table_ptr,
    columns,
    num_pages,
    page_size,
    rows,
    num_rows,
    num_heads,
    num_kv_heads,
    half,
    width,
    x_stride,
    weight_stride,
    table_stride,
    key_batch_stride,
    key_head_stride,
    key_row_stride,
    value_batch_stride,
    value_head_stride,
    value_row_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    slices = tl.cdiv(half, BLOCK_N // 2)
    head = (tl.program_id(0) // slices).to(tl.int64)
    pair = tl.program_id(0) % slices * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    row = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows, in_pairs = row < rows, pair < half
    inside = in_rows[:, None] & in_pairs[None, :]

    # project both elements of each rotation pair in one stream
    sums = stream_products(
        x_ptr,
        row,
        in_rows,
        x_stride,
        weight_ptr,
        scale_ptr,
        paired_rows(head * 2 * half + pair, half, BLOCK_N),
        paired_rows(pair, 0, BLOCK_N) < half,
        weight_stride,
        width,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    first, second = split_pairs(sums, BLOCK_M, BLOCK_N)
    if bias_ptr is not None:
        bias = bias_ptr + head * 2 * half + pair
        first += tl.load(bias, mask=in_pairs, other=0.0).to(tl.float32)[None, :]
        second += tl.load(bias + half, mask=in_pairs, other=0.0).to(tl.float32)[None, :]

    # values are not rotated
    if head < num_heads + num_kv_heads:
        position = tl.load(position_ptr + row, mask=in_rows, other=0).to(tl.int64)
        table = position[:, None] * table_stride + pair[None, :]
        cos = tl.load(cos_ptr + table, mask=inside, other=0.0)
        sin = tl.load(sin_ptr + table, mask=inside, other=0.0)
        unrotated = first
        first = first * cos - second * sin
        second = second * cos + unrotated * sin

    # queries go to the output, keys and values to their cache rows
    b, q = row // num_rows, row % num_rows
    if head < num_heads:
        query_row = (b * num_heads + head) * num_rows + q
        store_pairs(query_ptr + query_row[:, None] * 2 * half + pair[None, :], first, second, half, inside)
    else:
        position = tl.load(cache_row_ptr + row, mask=in_rows, other=-1)
        page, cache_row, there = locate(page_table_ptr, columns, num_pages, page_size, b, position, in_rows)
        written = inside & there[:, None]
        kv_head = head - num_heads
        if kv_head < num_kv_heads:
            target = page * key_batch_stride + kv_head * key_head_stride + cache_row * key_row_stride
            store_pairs(key_ptr + target[:, None] + pair[None, :], first, second, half, written)
        else:
            kv_head -= num_kv_heads
            target = page * value_batch_stride + kv_head * value_head_stride + cache_row * value_row_stride
            store_pairs(value_ptr + target[:, None] + pair[None, :], first, second, half, written)


def draft_qkv_rope(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    rope_cos: Tensor,
    rope_sin: Tensor,
    position_ids: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    num_heads: int,
    qkv_scale: Tensor | None = None,
    page_table: Tensor | None = None,
) -> Tensor:
    batch, num_rows, width = x.shape
    num_kv_heads, half = key_cache.shape[1], key_cache.shape[3] // 2
    query = torch.empty(batch, num_heads, num_rows, 2 * half, dtype=x.dtype, device=x.device)
    inputs, rows = as_rows(x), batch * num_rows
    if rows:
        block_m, heads = row_block(rows), num_heads + 2 * num_kv_heads
        draft_qkv_rope_kernel[
            lambda meta: (heads * triton.cdiv(half, meta["BLOCK_N"] // 2), triton.cdiv(rows, block_m))
        ](
            inputs,
            as_elements(qkv_weight),
            qkv_scale,
            qkv_bias,
            rope_cos,
            rope_sin,
            position_ids.contiguous(),
            query,
            key_cache,
            value_cache,
            cache_rows.contiguous(),
            *page_fields(key_cache, page_table),
            rows,
            num_rows,
            num_heads,
            num_kv_heads,
            half,
            width,
            inputs.stride(0),
            qkv_weight.stride(0),
            rope_cos.stride(0),
            *key_cache.stride()[:3],
            *value_cache.stride()[:3],
            BLOCK_M=block_m,
        )
    return query
