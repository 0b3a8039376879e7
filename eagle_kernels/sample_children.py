"""sample_children: draw each node's children from the draft's law without replacement."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def sample_children(
    draft_logits: Tensor,
    node_ids: Tensor,
    num_children: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    max_children: int,
    d2t: Tensor | None = None,
    num_fixed: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The children of F nodes for verify_rejection: first the fixed ones, then samples without replacement.

    The law is softmax(logits / temperature) under the request's filters. The num_fixed likeliest tokens come first
    (ties to the lowest id); the others by descending logit / temperature + gumbel, which is drawing one after the other
    without replacement (Kool et al., arXiv 1903.06059). At temperature <= 0 all are fixed. A tree stays exact only if
    num_children and num_fixed were decided before these children were drawn, see child_budget.

    draft_logits: [batch, F, draft_vocabulary] float32, bfloat16 or float16, before temperature
    node_ids:     [batch, F] int32, different for every node of a round: the key of its noise
    num_children: [batch, F] int32, at most max_children
    context_len:  [batch] int32: the key of the round
    seed:         [batch] int64
    temperature, top_k, top_p, min_p: [batch] float32, int32, float32, float32, as in sample_tokens
    max_children: K, 1 to min(draft_vocabulary, 64)
    d2t:          [draft_vocabulary] int32 or None, offset from a draft id to the target's
    num_fixed:    [batch, F] int32 or None (none fixed)

    Returns child_tokens [batch, F, K] int32 target ids in draw order and child_logprobs [batch, F, K] float32, log of
    the law; -1 and -inf beyond num_children, beyond the law's tokens and for rows with NaN or +inf, or all -inf.
    """
    fixed = torch.zeros_like(num_children) if num_fixed is None else num_fixed
    return resolve("sample_children", draft_logits, backend)(
        draft_logits, node_ids, num_children, fixed, context_len,
        seed, temperature, top_k, top_p, min_p, max_children, d2t,
    )  # fmt: skip


def child_budget(scores: Tensor, logprobs: Tensor, budget: int) -> Tensor:
    """How many children each node of a level gets, before any is drawn: num_children [batch, F] int32.

    The j-th child of a node is worth scores + logprobs[j]: the log-probability of its path and the j-th largest of its
    law, whatever token will be drawn. The `budget` most valuable places win; a node's places are a prefix. Deciding by
    the value of the drawn children instead would bias the output.

    scores:   [batch, F] float32, cumulative log-probability of each node
    logprobs: [batch, F, K] float32, the K largest log-probabilities of its law, descending (topk_logprobs)
    """
    worth = scores[..., None] + logprobs
    worth = torch.where(worth.isnan(), -torch.inf, worth)
    order = worth.flatten(1).argsort(dim=-1, descending=True, stable=True)
    chosen = torch.zeros_like(order).scatter(1, order[:, :budget], 1).view(worth.shape)
    return (chosen * (worth > -torch.inf)).sum(-1).int()


@torch.library.register_fake("eagle_kernels::sample_children")
def _(
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
    shape = (*node_ids.shape, max_children)
    return node_ids.new_empty(shape), draft_logits.new_empty(shape, dtype=torch.float32)
