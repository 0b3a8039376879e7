"""expand_tree in plain torch."""

import torch
from torch import Tensor

from eagle_kernels.reference.ancestor_mask import pack


def expand_tree(
    frontier_scores: Tensor,
    frontier_slots: Tensor,
    frontier_mask: Tensor,
    logprobs: Tensor,
    token_ids: Tensor,
    node_scores: Tensor,
    node_tokens: Tensor,
    node_parents: Tensor,
    slot_offset: int,
    row_offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    branching = logprobs.shape[2]
    scores = (frontier_scores[:, :, None] + logprobs).flatten(1)
    tokens = token_ids.flatten(1)
    level = slice(slot_offset, slot_offset + scores.shape[1])
    node_scores[:, level] = scores
    node_tokens[:, level] = tokens
    node_parents[:, level] = frontier_slots.repeat_interleave(branching, dim=1)

    ranked, order = torch.where(scores.isnan(), -torch.inf, scores).sort(dim=1, descending=True, stable=True)
    best = order[:, :branching]
    origin = best // branching
    rows = torch.arange(frontier_mask.shape[2] * 64, device=scores.device)
    own_bit = pack(rows == row_offset + torch.arange(branching, device=scores.device)[:, None])
    inherited = frontier_mask.gather(1, origin[:, :, None].expand(-1, -1, frontier_mask.shape[2]))
    return (
        ranked[:, :branching].contiguous(),
        (slot_offset + best).int(),
        tokens.gather(1, best),
        origin.int(),
        inherited | own_bit,
    )
