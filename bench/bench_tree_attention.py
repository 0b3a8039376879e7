"""tree_attention: a tree over its context, against torch's SDPA with a boolean mask over the whole context."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes, random_ancestor_mask
from eagle_kernels.reference.ancestor_mask import unpack


def case(s: Sizes, make: Maker, page_size: int | None = None, window: int | None = None) -> Case:
    """Over contiguous caches or over pages of page_size rows in random order, all of the context or a window of it."""
    length = s.context_len + s.num_nodes
    columns = -(-length // page_size) if page_size else 1
    query = make.normal(s.batch, s.num_nodes, s.num_heads, s.head_dim).transpose(1, 2)
    shape = (s.batch * columns, s.num_kv_heads, page_size or length, s.head_dim)
    key, value = (make.normal(*shape) for _ in range(2))
    context_len = make.tensor([s.context_len] * s.batch)
    arguments = (query, key, value, context_len, random_ancestor_mask(s, make), s.head_dim**-0.5)
    seen = min(s.context_len, window or s.context_len) + s.num_nodes
    cached = 2 * s.batch * s.num_kv_heads * seen * s.head_dim * key.itemsize
    flops = 4 * s.batch * s.num_heads * s.num_nodes * seen * s.head_dim
    if not page_size:
        arguments += (None, window) if window else ()
        return Case(arguments, cached + 2 * nbytes(query), flops, partial(in_torch, length - seen))
    page_table = make.tensor(torch.randperm(s.batch * columns).view(s.batch, columns))
    return Case((*arguments, page_table), cached + 2 * nbytes(query), flops, partial(paged_in_torch, length))


def in_torch(
    first: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    context_len: Tensor,
    ancestor_mask: Tensor,
    scale: float,
    page_table: None = None,
    window: int | None = None,
) -> Tensor:
    """For requests of one length, as all are here; rows before `first` are in no window."""
    rows, prefix = query.shape[2], key.shape[2] - query.shape[2] - first
    tree = unpack(ancestor_mask)[:, :, :rows]
    visible = torch.ones(len(query), rows, prefix, dtype=torch.bool, device=query.device)
    if window is not None:
        visible = prefix + tree.sum(dim=2, keepdim=True) - torch.arange(prefix, device=query.device) <= window
    visible = torch.cat([visible, tree], dim=2)[:, None]
    keys, values = key[:, :, first:], value[:, :, first:]
    output = scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=scale, enable_gqa=True)
    return output.transpose(1, 2)


def paged_in_torch(length: int, query: Tensor, key: Tensor, value: Tensor, *arguments: Any) -> Tensor:
    """SDPA takes no page table: the rows are gathered first."""
    *mask_and_scale, page_table = arguments
    gathered = (pool[page_table].transpose(1, 2).flatten(2, 3)[:, :, :length] for pool in (key, value))
    return in_torch(0, query, *gathered, *mask_and_scale)


bench_tree_attention = op_benchmark(
    "tree_attention",
    case,
    ("batch", "context_len", "num_nodes"),
    {"": {}, "pages of 16": {"page_size": 16}, "window of 512": {"window": 512}},
)
