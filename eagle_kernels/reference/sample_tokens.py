"""sample_tokens in plain torch, the noise and all sums in float64."""

import torch
from torch import Tensor

from eagle_kernels.reference.filters import filtered_scores, valid_rows
from eagle_kernels.reference.philox import SAMPLE, gumbel, philox_bits


def sample_tokens(
    logits: Tensor,
    position_ids: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
) -> Tensor:
    greedy = temperature <= 0
    scores = filtered_scores(
        logits, torch.where(greedy, 1.0, temperature)[:, None], top_k[:, None], top_p[:, None], min_p[:, None]
    )
    scores += gumbel(philox_bits(seed, position_ids, logits.shape[-1], SAMPLE))
    scores = torch.where(greedy[:, None, None], logits.double(), scores)
    return torch.where(valid_rows(logits), lowest_argmax(scores), -1).int()


def lowest_argmax(scores: Tensor) -> Tensor:
    """argmax over the last dimension, ties to the lowest index."""
    return (scores == scores.amax(-1, keepdim=True)).byte().argmax(-1)
