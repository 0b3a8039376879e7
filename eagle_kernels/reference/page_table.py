"""Paged caches in plain torch: where the positions of a request lie."""

import torch
from torch import Tensor


def locate(cache: Tensor, page_table: Tensor | None, b: int, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(there, pages, rows), each [S]: whether request b has a row at a position, and the cache's indices of that row.

    cache:      [num_pages, num_kv_heads, page_size, d]; with page_table None [B, num_kv_heads, L, d]
    page_table: [B, L / page_size] int32; None: the request is its own page
    positions:  [S] int64; any value
    """
    num_pages, _, page_size, _ = cache.shape
    if page_table is None:
        there = (positions >= 0) & (positions < page_size)
        return there, torch.full_like(positions, b), positions
    columns = positions.div(max(page_size, 1), rounding_mode="floor")
    there = (columns >= 0) & (columns < page_table.shape[1])
    pages = torch.full_like(positions, -1)
    pages[there] = page_table[b, columns[there]].long()
    there = (pages >= 0) & (pages < num_pages)
    return there, pages, positions - columns * page_size
