"""Paged copies of contiguous caches for tests: random page tables, NaN in pages that no request has, wild ids."""

import torch
from torch import Tensor

WILD_IDS = [2**31 - 1, -(2**31), -1, 10**6]


def random_table(batch: int, columns: int, num_pages: int, shared: int = 0) -> Tensor:
    """[batch, columns] int32: distinct pages in random order; the first `shared` columns are those of request 0."""
    table = torch.randperm(num_pages)[: batch * columns].view(batch, columns).int()
    table[:, :shared] = table[0, :shared]
    return table


def scattered(cache: Tensor, table: Tensor, num_pages: int, heads_last: bool = False) -> Tensor:
    """A pool [num_pages, H, S, d] with the rows of a cache [B, H, columns * S, d]; NaN in pages that nobody has.

    heads_last: as the transpose of a pool [num_pages, S, H, d]
    """
    batch, columns = table.shape
    pages = cache.unflatten(2, (columns, -1)).transpose(1, 2)  # [B, columns, H, S, d]
    pool = torch.full((num_pages, *pages.shape[2:]), torch.nan, dtype=cache.dtype)
    if heads_last:
        pool = pool.transpose(1, 2).contiguous().transpose(1, 2)
    for b in reversed(range(batch)):  # what requests share is that of request 0
        pool[table[b].long()] = pages[b]
    return pool


def gathered(pool: Tensor, table: Tensor) -> Tensor:
    """The contiguous cache [B, H, columns * S, d] that a pool holds under a table of valid ids."""
    return pool[table.long()].transpose(1, 2).flatten(2, 3)


def padded(cache: Tensor, page_size: int) -> Tensor:
    """A cache with rows of NaN behind it, one at least, up to a whole number of pages."""
    rows = page_size - cache.shape[2] % page_size
    return torch.cat([cache, cache.new_full((*cache.shape[:2], rows, cache.shape[3]), torch.nan)], dim=2)


def with_wild_ids(table: Tensor, page_size: int, lengths: list[int]) -> Tensor:
    """The table with wild ids for the pages behind the first lengths[b] rows."""
    needed = torch.arange(table.shape[1]) * page_size < torch.tensor(lengths)[:, None]
    wild = torch.tensor(WILD_IDS, dtype=torch.int32)[torch.arange(table.numel()) % len(WILD_IDS)]
    return torch.where(needed, table, wild.view_as(table))
