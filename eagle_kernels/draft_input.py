"""draft_input: what an EAGLE-3 draft layer attends with, token embedding and hidden state side by side."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def draft_input(
    token_ids: Tensor,
    hidden_states: Tensor,
    embed_weight: Tensor,
    embed_norm_weight: Tensor,
    hidden_norm_weight: Tensor,
    eps: float,
    *,
    backend: str | None = None,
) -> Tensor:
    """Returns cat(rms_norm(embed_weight[token_ids]), rms_norm(hidden_states)): the draft attention's input.

    B requests, Q rows each, H hidden size, V vocabulary (EAGLE-3, arXiv:2503.01840, section 3).

    token_ids:          [B, Q] int32, 0 <= id < V
    hidden_states:      [B, Q, H] float32, bfloat16 or float16; rows may be strided views
    embed_weight:       [V, H] same dtype
    embed_norm_weight:  [H] same dtype
    hidden_norm_weight: [H] same dtype
    eps:                of both norms
    returns             [B, Q, 2H] same dtype
    """
    return resolve("draft_input", token_ids, backend)(
        token_ids, hidden_states, embed_weight, embed_norm_weight, hidden_norm_weight, eps
    )


@torch.library.register_fake("eagle_kernels::draft_input")
def _(
    token_ids: Tensor,
    hidden_states: Tensor,
    embed_weight: Tensor,
    embed_norm_weight: Tensor,
    hidden_norm_weight: Tensor,
    eps: float,
) -> Tensor:
    return hidden_states.new_empty(*token_ids.shape, 2 * embed_weight.shape[1])
