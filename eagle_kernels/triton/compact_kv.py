"""compact_kv in Triton: caches that lie at even distances, as the layers of one buffer do, share a launch."""

from itertools import pairwise

import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of
from eagle_kernels.triton.common.page_table import locate, page_fields


# grid: (caches, batch, heads); a thread moves its own columns row by row, so nobody reads what another overwrote
@triton.jit
def compact_kv_kernel(
    cache_ptr,
    accept_index_ptr,
    accept_length_ptr,
    context_ptr,
    page_table_ptr,
    columns,
    num_pages,
    page_size,
    cache_distance,
    path_length,
    head_dim,
    batch_stride,
    head_stride,
    row_stride,
    BLOCK: tl.constexpr,
):
    b = tl.program_id(1).to(tl.int64)
    dim = tl.arange(0, BLOCK)
    inside = dim < head_dim
    context = tl.load(context_ptr + b).to(tl.int64)
    rows = cache_ptr + tl.program_id(0).to(tl.int64) * cache_distance + tl.program_id(2).to(tl.int64) * head_stride
    for i in range(1, tl.minimum(tl.load(accept_length_ptr + b) + 1, path_length)):  # the root is in place already
        node = tl.load(accept_index_ptr + b * path_length + i)
        page, row, there = locate(page_table_ptr, columns, num_pages, page_size, b, context + node, True)
        to_page, to_row, writable = locate(page_table_ptr, columns, num_pages, page_size, b, context + i, there)
        moved = inside & writable
        from_ptr = rows + page * batch_stride + row * row_stride
        to_ptr = rows + to_page * batch_stride + to_row * row_stride
        tl.store(to_ptr + dim, tl.load(from_ptr + dim, mask=moved), mask=moved)


def compact_kv(
    caches: list[Tensor],
    accept_index: Tensor,
    accept_length: Tensor,
    context_len: Tensor,
    page_table: Tensor | None = None,
) -> None:
    batch, path_length = accept_index.shape
    for run in even_runs(caches):
        first = run[0]
        distance = (run[1].data_ptr() - first.data_ptr()) // first.element_size() if len(run) > 1 else 0
        if first.numel():
            compact_kv_kernel[(len(run), batch, first.shape[1])](
                first,
                accept_index.contiguous(),
                accept_length,
                context_len,
                *page_fields(first, page_table),
                distance,
                path_length,
                first.shape[3],
                *first.stride()[:3],
                BLOCK=block_of(first.shape[3]),
                num_warps=1,
            )


def even_runs(caches: list[Tensor]) -> list[list[Tensor]]:
    """Cuts the list into runs of caches of one layout at even distances in memory."""
    runs: list[list[Tensor]] = []
    for cache in caches:
        if runs and continues(runs[-1], cache):
            runs[-1].append(cache)
        else:
            runs.append([cache])
    return runs


def continues(run: list[Tensor], cache: Tensor) -> bool:
    last = run[-1]
    if (last.dtype, last.shape, last.stride()) != (cache.dtype, cache.shape, cache.stride()):
        return False
    addresses = [t.data_ptr() for t in (*run[-2:], cache)]
    distances = [after - before for before, after in pairwise(addresses)]
    return distances[0] % cache.element_size() == 0 and len(set(distances)) == 1
