"""commit_step: pack what a round accepted into the next round's inputs."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def commit_step(
    draft_tokens: Tensor,
    accept_index: Tensor,
    accept_length: Tensor,
    bonus_token: Tensor,
    hidden_states: Tensor,
    context_len: Tensor,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs each accepted node's hidden states with the token emitted after it, as the draft head wants them.

    For i <= accept_length: next_tokens[i] = draft_tokens[accept_index[i + 1]], and the bonus token at
    i = accept_length; next_hidden[i] = hidden_states[accept_index[i]]; next_positions[i] = context_len + i.
    Padding rows (i > accept_length): token 0, hidden states 0, position context_len + accept_length.

    draft_tokens:  [B, N] int32
    accept_index:  [B, D + 1] int32, node ids from verify_tree, -1 padded
    accept_length: [B] int32, accepted draft tokens, <= D
    bonus_token:   [B] int32
    hidden_states: [B, N, A] float32, bfloat16 or float16, of the verified nodes; strided views welcome, last
                   dimension contiguous
    context_len:   [B] int32, committed rows before the round

    Returns
    next_tokens:      [B, D + 1] int32
    next_hidden:      [B, D + 1, A], dtype of hidden_states
    next_positions:   [B, D + 1] int32
    next_context_len: [B] int32, context_len + accept_length + 1
    """
    return resolve("commit_step", draft_tokens, backend)(
        draft_tokens, accept_index, accept_length, bonus_token, hidden_states, context_len
    )


@torch.library.register_fake("eagle_kernels::commit_step")
def _(
    draft_tokens: Tensor,
    accept_index: Tensor,
    accept_length: Tensor,
    bonus_token: Tensor,
    hidden_states: Tensor,
    context_len: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(accept_index),
        hidden_states.new_empty((*accept_index.shape, hidden_states.shape[2])),
        torch.empty_like(accept_index),
        torch.empty_like(context_len),
    )
