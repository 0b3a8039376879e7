"""Soft cross-entropy through a frozen lm_head, in row chunks: logits exist for one chunk at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle_decoding.train.config import LossOptions

ROWS_PER_CHUNK = 256
TOPK = 10  # of HASS's loss


class TokenScores(NamedTuple):
    """What the loss knows about each row; `loss` alone carries gradients.

    loss [R], float: soft cross-entropy against the teacher.
    logprob [R], float: the draft's log-probability of the row's own next token, -inf outside the draft vocabulary.
    hit [R], bool: the own next token is the draft's most probable one.
    """

    loss: Tensor
    logprob: Tensor
    hit: Tensor


class _LinearSoftCrossEntropy(torch.autograd.Function):
    """loss_r = logsumexp(z_r) - sum_v p_rv z_rv with z = h W^T; d loss_r / d h_r = (softmax(z_r) - p_r) W."""

    @staticmethod
    def forward(ctx, hidden, lm_head, teacher, teacher_row, token):  # type: ignore[no-untyped-def]
        loss, logprob = torch.empty_like(hidden[:, 0]), torch.empty_like(hidden[:, 0])
        hit = torch.empty_like(token, dtype=torch.bool)
        grad_hidden = torch.empty_like(hidden)
        rows = min(ROWS_PER_CHUNK, hidden.shape[0])
        logits_room, probs_room = (hidden.new_empty(rows, lm_head.shape[0]) for _ in range(2))
        for start in range(0, hidden.shape[0], ROWS_PER_CHUNK):
            chunk = slice(start, start + ROWS_PER_CHUNK)
            ids = token[chunk]
            logits = product(hidden[chunk], lm_head.T, logits_room[: ids.shape[0]])
            probs = torch.index_select(teacher, 0, teacher_row[chunk], out=probs_room[: ids.shape[0]])
            own = logits.gather(1, ids.clamp(min=0)[:, None])[:, 0].masked_fill(ids < 0, -torch.inf)
            best = logits.amax(-1)
            hit[chunk] = own == best
            expected = torch.linalg.vecdot(probs, logits)
            draft = torch.softmax(logits, -1, out=logits)
            log_normaliser = best - draft.amax(-1).log()
            loss[chunk] = log_normaliser - expected
            logprob[chunk] = own - log_normaliser
            product(draft.sub_(probs), lm_head, grad_hidden[chunk])
        ctx.save_for_backward(grad_hidden)
        ctx.mark_non_differentiable(logprob, hit)
        return loss, logprob, hit

    @staticmethod
    def backward(ctx, grad_loss, *_):  # type: ignore[no-untyped-def]
        (grad_hidden,) = ctx.saved_tensors
        return grad_hidden * grad_loss[:, None], None, None, None, None


def linear_soft_cross_entropy(
    hidden: Tensor, lm_head: Tensor, teacher: Tensor, teacher_row: Tensor, token: Tensor
) -> TokenScores:
    """Soft cross-entropy of softmax(hidden @ lm_head^T) against teacher rows, without materialising all logits.

    hidden [R, H], float: normed states, one row per prediction; the only argument that gets a gradient.
    lm_head [Vd, H], float: frozen rows of the target's lm_head.
    teacher [P, Vd], float: probabilities over the draft vocabulary, each row summing to one.
    teacher_row [R], int64: which teacher row belongs to each prediction.
    token [R], int64: draft id of the token that follows in the text, -1 outside the draft vocabulary.

    The lm_head is frozen, so its weight gradient is never formed: one product for the logits, one for d hidden.
    """
    return TokenScores(*_LinearSoftCrossEntropy.apply(hidden.to(teacher.dtype), lm_head, teacher, teacher_row, token))


def blended(teacher: Tensor, weights: LossOptions) -> tuple[Tensor, float | Tensor]:
    """The token loss and the top-k loss of HASS as one: a teacher and how much a row of it weighs, a number or [P].

    teacher [P, Vd], float: probabilities p. With p_k = p over its TOPK largest entries and zero elsewhere,
    cross-entropy against token * p + topk * p_k is m times that against the same divided by its sum m.
    """
    if not weights.topk:
        return teacher, weights.token
    least = teacher.topk(min(TOPK, teacher.shape[1])).values[:, -1:]
    blend = teacher * (weights.token + weights.topk * (teacher >= least))
    mass = blend.sum(-1)
    return blend / mass[:, None], mass


def feature_loss(predicted: Tensor, final: Tensor) -> Tensor:
    """EAGLE-1's regression [R] of states predicted [R, H] onto the target's, final [R, H]: smooth L1, mean over H."""
    return F.smooth_l1_loss(predicted, final, reduction="none").mean(-1)


def teacher_probabilities(hidden: Tensor, lm_head: Tensor) -> Tensor:
    """The target's distribution restricted to the draft vocabulary and renormalised there.

    hidden [P, H], float: the target's states after its final norm; lm_head [Vd, H], float. Returns [P, Vd], float.
    """
    probs = hidden.new_empty(hidden.shape[0], lm_head.shape[0])
    for start in range(0, hidden.shape[0], ROWS_PER_CHUNK):
        chunk = slice(start, start + ROWS_PER_CHUNK)
        torch.softmax(product(hidden[chunk], lm_head.T, probs[chunk]), -1, out=probs[chunk])
    return probs


def product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """left @ right written to `out`; under autocast the factors are rounded to its type, as torch's own products do."""
    device = out.device.type
    if torch.is_autocast_enabled(device):
        return out.copy_(left @ right)
    return torch.mm(left, right, out=out)
