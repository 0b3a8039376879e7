"""write_kv in plain torch."""

from torch import Tensor

from eagle_kernels.reference.page_table import locate


def write_kv(
    key_states: Tensor,
    value_states: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    page_table: Tensor | None = None,
) -> None:
    for states, cache in ((key_states, key_cache), (value_states, value_cache)):
        for b in range(len(states)):
            there, pages, rows = locate(cache, page_table, b, cache_rows[b].long())
            cache[pages[there], :, rows[there]] = states[b, :, there].transpose(0, 1)
