"""compact_kv: an accepted path in every layer's cache, against an indexed copy per cache."""

import torch
from torch import Tensor

from bench.case import Case, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes

CONTEXT = 256  # committed rows are not read: a short cache times the same


def case(s: Sizes, make: Maker, most_accepted: int = 3) -> Case:
    steps, accepted = torch.arange(s.max_depth + 1), min(most_accepted, s.max_depth)
    shape = (s.batch, s.num_kv_heads, CONTEXT + s.num_nodes, s.head_dim)
    caches = [make.normal(*shape) for _ in range(2 * s.num_layers)]
    accept_index = make.tensor(torch.where(steps <= accepted, 2 * steps, -1).repeat(s.batch, 1))
    accept_length, context_len = (make.tensor([value] * s.batch) for value in (accepted, CONTEXT))
    row = s.batch * s.num_kv_heads * s.head_dim * caches[0].itemsize
    return Case((caches, accept_index, accept_length, context_len), 2 * accepted * len(caches) * row, 0, in_torch)


def in_torch(caches: list[Tensor], accept_index: Tensor, accept_length: Tensor, context_len: Tensor) -> None:
    steps = torch.arange(accept_index.shape[1], device=accept_index.device)
    path = torch.where(accept_index >= 0, accept_index, steps)  # rows behind the path stay where they are
    batch = torch.arange(len(path), device=path.device)[:, None]
    source, target = context_len[:, None] + path, context_len[:, None] + steps
    for cache in caches:
        rows = cache.transpose(1, 2)
        rows[batch, target] = rows[batch, source]


bench_compact_kv = op_benchmark("compact_kv", case, ("batch",))
