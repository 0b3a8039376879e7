"""compact_kv in plain torch."""

import torch
from torch import Tensor

from eagle_kernels.reference.page_table import locate


def compact_kv(
    caches: list[Tensor],
    accept_index: Tensor,
    accept_length: Tensor,
    context_len: Tensor,
    page_table: Tensor | None = None,
) -> None:
    for b in range(accept_index.shape[0]):
        path = accept_index[b, : int(accept_length[b]) + 1].long()
        steps = torch.arange(len(path), device=path.device)
        for cache in caches:
            readable, from_pages, from_rows = locate(cache, page_table, b, context_len[b] + path)
            writable, to_pages, to_rows = locate(cache, page_table, b, context_len[b] + steps)
            moved = readable & writable
            cache[to_pages[moved], :, to_rows[moved]] = cache[from_pages[moved], :, from_rows[moved]]
