"""Coupled drafting: children ranked with the very noise that will choose the target's token.

The walk emits argmax(target_logits / temperature + G), where the Gumbel noise G depends on (seed, position, token)
alone. A draft may look at G: whatever it proposes, the text is that of plain sampling (drafter-invariant coupling:
Daliri, Musco and Suresh, arXiv 2408.07978). Children and trees are ranked by

    log_softmax(draft_logits + NOISE_WEIGHT * temperature * G)

Why the weight: let the target's logits be a * draft_logits plus independent errors, close to Gumbel noise of scale s. A
token then wins with probability softmax((a * draft_logits + temperature * G) / s). Without noise the draft's own law is
right, so a = s; and a > 1, because a law that is the average over the errors is flatter than each of the target's. The
weight is 1 / a: 1 for a perfect draft, smaller for one that knows less (bench/coupling_weight.py measures it). At
temperature 0 the ranking is the draft's own.
"""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.config import Children
from eagle_decoding.sampling import SamplingParams

NOISE_WEIGHT = 0.85
CANDIDATES = 256  # a row's top-p threshold is looked for among so many tokens


class Coupling:
    """What coupled drafting needs for a batch of requests, made once when they start.

    params:     how each request samples, [batch] each
    vocab_size: the target's
    d2t:        [draft_vocab] int32 offset from a draft id to the target's, or None
    """

    def __init__(self, params: SamplingParams, vocab_size: int, d2t: Tensor | None):
        self.params, self.vocab_size, self.d2t = params, vocab_size, d2t
        self.target_ids = None if d2t is None else torch.arange(len(d2t), device=d2t.device) + d2t
        self.filtered = params.filtered()

    def topk(self, logits: Tensor, position_ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest winners after each node: log-probabilities float32 and target ids int32, [batch, rows, k].

        logits:       [batch, rows, draft_vocab], the draft's, before temperature
        position_ids: [batch] int32, position of the token that is proposed
        """
        noise = eagle_kernels.gumbel_noise(self.params.seed, position_ids[:, None], self.vocab_size)
        if self.target_ids is not None:
            noise = noise[..., self.target_ids]
        logits = logits.float()
        scores = logits + NOISE_WEIGHT * self.params.temperature[:, None, None].clamp(min=0) * noise
        if self.filtered:
            scores = scores.masked_fill(logits < threshold(logits, self.params), -torch.inf)
        logprobs, tokens, _ = eagle_kernels.topk_logprobs(scores.flatten(0, 1), k, self.d2t)
        return logprobs.view(*logits.shape[:2], k), tokens.view(*logits.shape[:2], k)


def coupling(rule: Children, params: SamplingParams, vocab_size: int, d2t: Tensor | None) -> Coupling | None:
    """The requests' Coupling; None where no request samples or the rule for children is another one."""
    wanted = rule == "coupled" and bool((params.temperature > 0).any())
    return Coupling(params, vocab_size, d2t) if wanted else None


def threshold(logits: Tensor, params: SamplingParams) -> Tensor:
    """The least logit that the request's filters keep, [batch, rows, 1]; a draft may be a little off.

    logits: [batch, rows, draft_vocab] float32
    """
    temperature, top_k, top_p, min_p = (
        value[:, None, None] for value in (params.temperature, params.top_k, params.top_p, params.min_p)
    )
    top = logits.topk(min(CANDIDATES, logits.shape[-1])).values
    best, last = top[..., :1], top.shape[-1] - 1
    kth = top.gather(-1, (top_k.long() - 1).clamp(0, last).expand_as(best))
    floor = torch.where((top_k > 0) & (top_k <= last), kth, -torch.inf)
    weight = ((logits - best) / temperature.clamp(min=1e-6)).exp().masked_fill(logits < floor, 0)
    mass = ((top - best) / temperature.clamp(min=1e-6)).exp().cumsum(-1) / weight.sum(-1, keepdim=True)
    needed = (mass < top_p).sum(-1, keepdim=True).clamp(max=last)
    floor = torch.where(top_p < 1, torch.maximum(floor, top.gather(-1, needed)), floor)
    floor = torch.maximum(floor, best + temperature * min_p.clamp(min=1e-30).log())
    return torch.where(temperature > 0, floor, -torch.inf)
