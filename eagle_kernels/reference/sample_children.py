"""sample_children in plain torch, the noise and all sums in float64."""

import torch
from torch import Tensor

from eagle_kernels.reference.filters import filtered_scores, valid_rows
from eagle_kernels.reference.philox import DRAFT, gumbel, philox_bits


def sample_children(
    draft_logits: Tensor,
    node_ids: Tensor,
    num_children: Tensor,
    num_fixed: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    max_children: int,
    d2t: Tensor | None,
) -> tuple[Tensor, Tensor]:
    greedy = (temperature <= 0)[:, None]
    vocabulary = draft_logits.shape[-1]
    scores = filtered_scores(
        draft_logits, torch.where(greedy, 1, temperature[:, None]), top_k[:, None], top_p[:, None], min_p[:, None]
    )
    scores = torch.where(greedy[..., None], draft_logits.double(), scores)
    logprobs = scores.log_softmax(-1)
    position_ids = context_len[:, None].expand_as(node_ids)
    noisy = scores + gumbel(philox_bits(seed, position_ids, vocabulary, DRAFT, node_ids))
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    fixed = (rank < num_fixed[..., None]) | greedy[..., None]
    order = torch.where(fixed & scores.isfinite(), 1e30 - rank.double() * 1e20, noisy)  # fixed ones first, by rank
    best, token_ids = order.sort(dim=-1, descending=True, stable=True)
    best, token_ids = best[..., :max_children], token_ids[..., :max_children]
    drawn = (best > -torch.inf) & (torch.arange(max_children, device=best.device) < num_children[..., None])
    drawn &= valid_rows(draft_logits)[..., None]
    child_logprobs = torch.where(drawn, logprobs.gather(-1, token_ids), -torch.inf).float()
    child_tokens = token_ids if d2t is None else token_ids + d2t[token_ids]
    return torch.where(drawn, child_tokens, -1).int(), child_logprobs
