"""draft_input in plain torch."""

import torch
from torch import Tensor

from eagle_kernels.reference.rms_norm import rms_norm


def draft_input(
    token_ids: Tensor,
    hidden_states: Tensor,
    embed_weight: Tensor,
    embed_norm_weight: Tensor,
    hidden_norm_weight: Tensor,
    eps: float,
) -> Tensor:
    embedding = rms_norm(embed_weight[token_ids.long()], embed_norm_weight, eps)
    return torch.cat([embedding, rms_norm(hidden_states, hidden_norm_weight, eps)], dim=-1)
