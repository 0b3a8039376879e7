"""Soft cross-entropy through a frozen lm_head, in row chunks: logits exist for one chunk at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROWS_PER_CHUNK = 256


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
        for start in range(0, hidden.shape[0], ROWS_PER_CHUNK):
            chunk = slice(start, start + ROWS_PER_CHUNK)
            logits = hidden[chunk] @ lm_head.T
            probs = teacher[teacher_row[chunk]]
            ids = token[chunk]
            own = logits.gather(1, ids.clamp(min=0)[:, None])[:, 0].masked_fill(ids < 0, -torch.inf)
            best = logits.amax(-1)
            hit[chunk] = own == best
            expected = torch.linalg.vecdot(probs, logits)
            draft = logits.sub_(best[:, None]).exp_()
            total = draft.sum(-1)
            log_normaliser = best + total.log()
            loss[chunk] = log_normaliser - expected
            logprob[chunk] = own - log_normaliser
            torch.mm(draft.div_(total[:, None]).sub_(probs), lm_head, out=grad_hidden[chunk])
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
    On a GPU everything between the two products is one Triton kernel.
    """
    function: type[torch.autograd.Function] = _LinearSoftCrossEntropy
    if hidden.is_cuda:
        from eagle_decoding.train.losses_triton import LinearSoftCrossEntropy as function
    return TokenScores(*function.apply(hidden, lm_head, teacher, teacher_row, token))


def teacher_probabilities(hidden: Tensor, lm_head: Tensor) -> Tensor:
    """The target's distribution restricted to the draft vocabulary and renormalised there.

    hidden [P, H], float: the target's states after its final norm; lm_head [Vd, H], float. Returns [P, Vd], float.
    """
    probs = hidden.new_empty(hidden.shape[0], lm_head.shape[0])
    for start in range(0, hidden.shape[0], ROWS_PER_CHUNK):
        chunk = slice(start, start + ROWS_PER_CHUNK)
        torch.softmax(hidden[chunk] @ lm_head.T, -1, out=probs[chunk])
    return probs
