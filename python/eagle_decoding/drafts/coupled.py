"""Coupled drafting: children ranked with the very noise that will choose the target's token.

The walk emits argmax(target_logits / temperature + G), where the Gumbel noise G depends on (seed, position, token)
alone. A draft may look at G: whatever it proposes, the text is that of plain sampling (drafter-invariant coupling:
Daliri, Musco and Suresh, arXiv 2408.07978). Where the target's logits are the draft's plus independent Gumbel errors of
scale s, a token wins with probability softmax((draft_logits + temperature * G) / s). At temperature 0 a head that was
trained by cross-entropy has s = 1, and s = 1 is also what sampled text makes likeliest (bench/coupling_scale.py), so
the tree is grown and re-ranked with log_softmax(draft_logits + temperature * G).
"""

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.sampling import SamplingParams

CANDIDATES = 256  # a row's top-p threshold is looked for among so many tokens


def coupled_topk(
    logits: Tensor,
    position_ids: Tensor,
    params: SamplingParams,
    k: int,
    d2t: Tensor | None,
    vocab_size: int,
    filtered: bool = True,
) -> tuple[Tensor, Tensor]:
    """The k likeliest winners after each node: log-probabilities float32 and target ids int32, [batch, rows, k].

    logits:       [batch, rows, draft_vocab], the draft's, before temperature
    position_ids: [batch] int32, position of the token that is proposed
    d2t:          [draft_vocab] int32 offset from a draft id to the target's, or None
    vocab_size:   the target's
    filtered:     False if no request uses top-k, top-p or min-p
    """
    noise = eagle_kernels.gumbel_noise(params.seed, position_ids[:, None], vocab_size)
    if d2t is not None:
        noise = noise[..., torch.arange(len(d2t), device=d2t.device) + d2t]
    temperature = params.temperature[:, None, None].clamp(min=0)
    logits = logits.float()
    scores = logits + temperature * noise
    if filtered:
        scores = scores.masked_fill(logits < threshold(logits, params), -torch.inf)
    logprobs, tokens, _ = eagle_kernels.topk_logprobs(scores.flatten(0, 1), k, d2t)
    return logprobs.view(*logits.shape[:2], k), tokens.view(*logits.shape[:2], k)


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
