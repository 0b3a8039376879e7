"""compact_kv: move the accepted rows of a draft tree to the front, in every cache at once."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def compact_kv(
    caches: list[Tensor],
    accept_index: Tensor,
    accept_length: Tensor,
    context_len: Tensor,
    page_table: Tensor | None = None,
    *,
    backend: str | None = None,
) -> None:
    """Makes the accepted path of each request contiguous behind its committed rows, in place.

    For i in 0..accept_length: row context_len + accept_index[i] is copied to row context_len + i. Paths ascend
    (accept_index[i] >= i), so rows only move towards the front and no row is overwritten before it was read. Where
    the cache does not have one of the two rows, nothing is written.

    caches:        list of [batch, num_kv_heads, length, head_dim] float32, bfloat16 or float16; strided views
                   welcome, last dimension contiguous. With a page table, pools [num_pages, num_kv_heads, page_size,
                   head_dim] that agree in num_pages and page_size
    accept_index:  [batch, max_depth + 1] int32, node ids from verify_tree, -1 padded
    accept_length: [batch] int32, accepted draft tokens
    context_len:   [batch] int32, committed rows
    page_table:    [batch, length / page_size] int32, or None for contiguous caches: row t of request b is row
                   t % page_size of page page_table[b, t // page_size]; an id outside 0..num_pages-1 is no page. A
                   page that is written must belong to one request
    """
    resolve("compact_kv", accept_index, backend)(caches, accept_index, accept_length, context_len, page_table)


@torch.library.register_fake("eagle_kernels::compact_kv")
def _(
    caches: list[Tensor],
    accept_index: Tensor,
    accept_length: Tensor,
    context_len: Tensor,
    page_table: Tensor | None = None,
) -> None:
    return None
