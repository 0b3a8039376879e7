"""verify_tree: the walk through a tree, against a walk by comparisons of whole trees."""

import torch
from torch import Tensor

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes, random_parents


def case(s: Sizes, make: Maker) -> Case:
    parent = make.tensor([random_parents(s.num_nodes, s.max_depth) for _ in range(s.batch)])
    draft_tokens, target_tokens = (make.integers(0, 3, s.batch, s.num_nodes) for _ in range(2))
    num_bytes = 3 * nbytes(parent) + 4 * s.batch * (s.max_depth + 3)
    return Case((draft_tokens, parent, target_tokens, s.max_depth), num_bytes, 0, in_torch)


def in_torch(draft_tokens: Tensor, parent: Tensor, target_tokens: Tensor, max_depth: int) -> tuple[Tensor, ...]:
    nodes = torch.arange(draft_tokens.shape[1], device=parent.device)
    follows = (parent[:, None] == nodes[:, None]) & (draft_tokens[:, None] == target_tokens[..., None])
    has_child, child = follows.any(-1), follows.byte().argmax(-1)
    here = torch.zeros(len(parent), 1, dtype=torch.long, device=parent.device)
    going = torch.ones_like(here, dtype=torch.bool)
    path = [here]
    for _ in range(max_depth):
        going = going & has_child.gather(1, here)
        here = torch.where(going, child.gather(1, here), here)
        path.append(torch.where(going, here, -1))
    accept_index = torch.cat(path, dim=1)
    return accept_index, (accept_index >= 0).sum(-1) - 1, target_tokens.gather(1, here)


bench_verify_tree = op_benchmark("verify_tree", case, ("batch", "num_nodes"))
