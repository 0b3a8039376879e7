"""commit_step: features of an accepted path packed for the head, against torch's gathers."""

import torch
from torch import Tensor

from bench.case import Case, nbytes, op_benchmark
from eagle_decoding.numerics.cases import Maker, Sizes


def case(s: Sizes, make: Maker) -> Case:
    steps, accepted = torch.arange(s.max_depth + 1), min(3, s.max_depth, (s.num_nodes - 1) // 2)
    draft_tokens = make.integers(0, s.vocab_size, s.batch, s.num_nodes)
    accept_index = make.tensor(torch.where(steps <= accepted, 2 * steps, -1).repeat(s.batch, 1))
    accept_length, context_len = (make.tensor([value] * s.batch) for value in (accepted, s.context_len))
    hidden_states = make.normal(s.batch, s.num_nodes, 3 * s.hidden_size)
    arguments = (draft_tokens, accept_index, accept_length, accept_length, hidden_states, context_len)
    row = hidden_states[0, 0].nbytes
    num_bytes = s.batch * row * (accepted + 1 + s.max_depth + 1) + 4 * nbytes(accept_index)
    return Case(arguments, num_bytes, 0, in_torch)


def in_torch(
    draft_tokens: Tensor,
    accept_index: Tensor,
    accept_length: Tensor,
    bonus_token: Tensor,
    hidden_states: Tensor,
    context_len: Tensor,
) -> tuple[Tensor, ...]:
    steps = torch.arange(accept_index.shape[1], device=accept_index.device)
    path = accept_index.clamp(min=0).long()
    tokens = draft_tokens.gather(1, path.roll(-1, dims=1))
    tokens = torch.where(steps == accept_length[:, None], bonus_token[:, None], tokens)
    hidden = hidden_states.gather(1, path[..., None].expand(-1, -1, hidden_states.shape[2]))
    return tokens, hidden, context_len[:, None] + steps, context_len + accept_length + 1


bench_commit_step = op_benchmark("commit_step", case, ("batch", "max_depth"))
