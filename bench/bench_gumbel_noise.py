"""gumbel_noise: keyed noise for every node of a tree, against torch's own exponential draws."""

import torch
from torch import Tensor

from bench.case import Case, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    positions = make.tensor(s.context_len + torch.arange(s.num_nodes).repeat(s.batch, 1))
    values = s.batch * s.num_nodes * s.vocab_size
    return Case((make.tensor([7] * s.batch, torch.int64), positions, s.vocab_size), 4 * values, 60 * values, in_torch)


def in_torch(seed: Tensor, position_ids: Tensor, num_tokens: int) -> Tensor:
    return -torch.empty(*position_ids.shape, num_tokens, device=seed.device).exponential_().log()


bench_gumbel_noise = op_benchmark("gumbel_noise", case, ("batch", "num_nodes"))
