"""write_kv: a layer's new keys and values into its caches."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def write_kv(
    key_states: Tensor,
    value_states: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    page_table: Tensor | None = None,
    *,
    backend: str | None = None,
) -> None:
    """Copies keys and values to their rows of the caches, in place: cache[b, :, cache_rows[b, i]] = states[b, :, i].

    key_states:   [B, num_kv_heads, Q, d] float32, bfloat16 or float16; strided views welcome, last dimension contiguous
    value_states: as key_states
    key_cache:    [B, num_kv_heads, L, d] same dtype, written in place; strided views welcome, last dimension contiguous
    value_cache:  as key_cache. With a page table, both are pools [num_pages, num_kv_heads, page_size, d]
    cache_rows:   [B, Q] int32, the cache row of each token, distinct within a request; -1 writes nothing
    page_table:   [B, L / page_size] int32, or None for contiguous caches: row t of request b is row t % page_size of
                  page page_table[b, t // page_size]; an id outside 0..num_pages-1 is no page, and nothing is written.
                  A page that is written must belong to one request
    """
    resolve("write_kv", key_states, backend)(key_states, value_states, key_cache, value_cache, cache_rows, page_table)


@torch.library.register_fake("eagle_kernels::write_kv")
def _(
    key_states: Tensor,
    value_states: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    page_table: Tensor | None = None,
) -> None:
    return None
