"""write_kv in Triton: a program per row and head writes its key and its value."""

import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of
from eagle_kernels.triton.common.page_table import locate, page_fields


# grid: (rows, heads, batch)
@triton.jit
def write_kv_kernel(
    key_ptr,
    value_ptr,
    key_cache_ptr,
    value_cache_ptr,
    cache_rows_ptr,
    page_table_ptr,
    columns,
    num_pages,
    page_size,
    num_rows,
    head_dim,
    key_batch_stride,
    key_head_stride,
    key_row_stride,
    value_batch_stride,
    value_head_stride,
    value_row_stride,
    key_cache_batch_stride,
    key_cache_head_stride,
    key_cache_row_stride,
    value_cache_batch_stride,
    value_cache_head_stride,
    value_cache_row_stride,
    BLOCK: tl.constexpr,
):
    i, head, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    position = tl.load(cache_rows_ptr + b * num_rows + i)
    page, row, there = locate(page_table_ptr, columns, num_pages, page_size, b, position, True)
    dim = tl.arange(0, BLOCK)
    written = (dim < head_dim) & there
    key = tl.load(key_ptr + b * key_batch_stride + head * key_head_stride + i * key_row_stride + dim, mask=written)
    value_row = b * value_batch_stride + head * value_head_stride + i * value_row_stride
    value = tl.load(value_ptr + value_row + dim, mask=written)
    key_row = page * key_cache_batch_stride + head * key_cache_head_stride + row * key_cache_row_stride
    tl.store(key_cache_ptr + key_row + dim, key, mask=written)
    value_row = page * value_cache_batch_stride + head * value_cache_head_stride + row * value_cache_row_stride
    tl.store(value_cache_ptr + value_row + dim, value, mask=written)


def write_kv(
    key_states: Tensor,
    value_states: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    page_table: Tensor | None = None,
) -> None:
    batch, heads, rows, head_dim = key_states.shape
    if key_states.numel() == 0:
        return
    write_kv_kernel[(rows, heads, batch)](
        key_states,
        value_states,
        key_cache,
        value_cache,
        cache_rows.contiguous(),
        *page_fields(key_cache, page_table),
        rows,
        head_dim,
        *key_states.stride()[:3],
        *value_states.stride()[:3],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        BLOCK=block_of(head_dim),
        num_warps=1,
    )
