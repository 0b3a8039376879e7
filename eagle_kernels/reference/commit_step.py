"""commit_step in plain torch."""

import torch
from torch import Tensor


def commit_step(
    draft_tokens: Tensor,
    accept_index: Tensor,
    accept_length: Tensor,
    bonus_token: Tensor,
    hidden_states: Tensor,
    context_len: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps = torch.arange(accept_index.shape[1], device=accept_index.device)
    last = accept_length[:, None]
    path = accept_index.clamp(min=0).long()
    following = path.roll(-1, dims=1)  # the last column wraps around, and holds the bonus token or padding
    next_tokens = torch.where(steps < last, draft_tokens.gather(1, following), 0)
    next_tokens = torch.where(steps == last, bonus_token[:, None], next_tokens)
    rows = hidden_states.gather(1, path[:, :, None].expand(-1, -1, hidden_states.shape[2]))
    next_hidden = torch.where((steps <= last)[:, :, None], rows, 0)
    next_positions = context_len[:, None] + torch.minimum(steps, last)
    return next_tokens.int(), next_hidden, next_positions.int(), context_len + accept_length + 1
