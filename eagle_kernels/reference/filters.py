"""Temperature, top-k, top-p and min-p in float64, in transformers' order: the law that a row of logits stands for."""

import torch
from torch import Tensor


def valid_rows(logits: Tensor) -> Tensor:
    """True for rows that define a distribution: no NaN, no +inf, not all -inf. [..., V] -> [...]"""
    top = logits.amax(-1)  # amax propagates NaN
    return ~top.isnan() & ~top.isinf()


def filtered_scores(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """logits / temperature with -inf at every token that a filter drops, float64; meaningless in invalid rows.

    The kept tokens are those of transformers' TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper. In the order
    (score, token id) all three keep a tail, so what is kept is always {(score, id) >= some pair}: top-k and min-p keep
    every tie at their threshold; top-p drops ties by ascending id, as a stable ascending sort does.

    logits: [..., V]; temperature (> 0), top_k (0 = off), top_p (1 = off), min_p (0 = off): [...] or broadcastable
    """
    scores = logits.double() / temperature.double()[..., None]
    scores = _top_k(scores, top_k[..., None])
    scores = _top_p(scores, top_p.double()[..., None])
    return _min_p(scores, min_p.double()[..., None])


def _top_k(scores: Tensor, top_k: Tensor) -> Tensor:
    rank = torch.where(top_k > 0, top_k.clamp(max=scores.shape[-1]), scores.shape[-1]).long() - 1
    threshold = scores.sort(dim=-1, descending=True).values.gather(-1, rank.expand(*scores.shape[:-1], 1))
    return scores.masked_fill(scores < threshold, -torch.inf)


def _top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    ascending, token_ids = scores.sort(dim=-1, stable=True)
    drop = (ascending.softmax(-1).cumsum(-1) <= 1 - top_p) & (top_p < 1)
    drop[..., -1] = False
    return scores.masked_fill(torch.zeros_like(drop).scatter(-1, token_ids, drop), -torch.inf)


def _min_p(scores: Tensor, min_p: Tensor) -> Tensor:
    probs = scores.softmax(-1)
    return scores.masked_fill(probs < min_p.clamp(max=1) * probs.amax(-1, keepdim=True), -torch.inf)
