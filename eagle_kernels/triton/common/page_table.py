"""Paged caches in Triton kernels: where the positions of a request lie."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def locate(page_table_ptr, columns, num_pages, page_size, b, position, wanted):
    """(page, row, there) of positions; the table is read only where `wanted`. Without one, request b is a page."""
    there = wanted & (position >= 0)
    if page_table_ptr is None:
        page = b.to(tl.int64)
        row = position.to(tl.int64)
        there &= position < page_size
    else:
        column = position // page_size
        there &= column < columns
        page = tl.load(page_table_ptr + b.to(tl.int64) * columns + column, mask=there, other=-1).to(tl.int64)
        row = (position - column * page_size).to(tl.int64)
        there &= (page >= 0) & (page < num_pages)
    return page, row, there


def page_fields(cache: Tensor, page_table: Tensor | None) -> tuple[Tensor | None, int, int, int]:
    """The first four arguments of `locate`."""
    if page_table is None:
        return None, 1, cache.shape[0], cache.shape[2]
    return page_table.contiguous(), page_table.shape[1], cache.shape[0], cache.shape[2]
