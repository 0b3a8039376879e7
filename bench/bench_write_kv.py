"""write_kv: a layer's new keys and values into its caches, against two indexed assignments."""

import torch
from torch import Tensor

from bench.case import Case, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes

CONTEXT = 256  # committed rows are not touched: a short cache times the same


def case(s: Sizes, make: Maker) -> Case:
    states = [make.normal(s.batch, s.num_nodes, s.num_kv_heads, s.head_dim).transpose(1, 2) for _ in range(2)]
    caches = [make.normal(s.batch, s.num_kv_heads, CONTEXT + s.num_nodes, s.head_dim) for _ in range(2)]
    rows = make.tensor((CONTEXT + torch.arange(s.num_nodes)).repeat(s.batch, 1))
    return Case((*states, *caches, rows), 2 * sum(t.numel() * t.itemsize for t in states), 0, in_torch)


def in_torch(
    key_states: Tensor, value_states: Tensor, key_cache: Tensor, value_cache: Tensor, cache_rows: Tensor
) -> None:
    batch = torch.arange(len(cache_rows), device=cache_rows.device)[:, None]
    for states, cache in ((key_states, key_cache), (value_states, value_cache)):
        cache.transpose(1, 2)[batch, cache_rows] = states.transpose(1, 2)


bench_write_kv = op_benchmark("write_kv", case, ("batch", "num_nodes"))
