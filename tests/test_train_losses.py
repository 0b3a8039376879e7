"""Chunked linear soft cross-entropy against plain autograd in fp64, and the schedule."""

import pytest
import torch

from eagle_decoding.train import losses_triton
from eagle_decoding.train.config import OptimOptions
from eagle_decoding.train.losses import ROWS_PER_CHUNK, linear_soft_cross_entropy, teacher_probabilities
from eagle_decoding.train.schedule import learning_rate


def problem(rows, vocab=37, width=11, positions=9):
    hidden = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    lm_head = torch.randn(vocab, width, dtype=torch.float64)
    final = torch.randn(positions, width, dtype=torch.float64)
    teacher_row = torch.randint(0, positions, (rows,))
    token = torch.randint(-1, vocab, (rows,))
    return hidden, lm_head, final, teacher_row, token


@pytest.mark.parametrize("rows", [1, ROWS_PER_CHUNK - 1, ROWS_PER_CHUNK, 2 * ROWS_PER_CHUNK + 3])
def test_loss_gradient_and_token_figures_against_autograd(rows):
    hidden, lm_head, final, teacher_row, token = problem(rows)
    teacher = teacher_probabilities(final, lm_head)
    torch.testing.assert_close(teacher, (final @ lm_head.T).softmax(-1), rtol=1e-12, atol=1e-12)
    weights = torch.randn(rows, dtype=torch.float64)
    scores = linear_soft_cross_entropy(hidden, lm_head, teacher, teacher_row, token)
    (gradient,) = torch.autograd.grad((scores.loss * weights).sum(), hidden)

    logprobs = (hidden @ lm_head.T).log_softmax(-1)
    loss = -(teacher[teacher_row] * logprobs).sum(-1)
    (expected,) = torch.autograd.grad((loss * weights).sum(), hidden)
    torch.testing.assert_close(scores.loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    inside = token >= 0
    own = logprobs.gather(1, token.clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(scores.logprob[inside], own[inside], rtol=1e-12, atol=1e-12)
    assert (scores.logprob[~inside] == -torch.inf).all()
    assert torch.equal(scores.hit, logprobs.argmax(-1) == token)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-5), (torch.float16, 2e-2)], ids=["fp32", "fp16"])
@pytest.mark.parametrize("rows, vocab, width", [(1, 1, 3), (7, 37, 11), (2 * 5 + 3, 300, 65)])
def test_triton_against_autograd(monkeypatch, device, dtype, bound, rows, vocab, width):
    """Odd shapes over several chunks and several blocks of the vocabulary, against plain autograd in fp64."""
    monkeypatch.setattr(losses_triton, "ROWS_PER_CHUNK", 5)
    monkeypatch.setattr(losses_triton, "BLOCK", 128)
    hidden, lm_head, final, teacher_row, token = problem(rows, vocab, width)
    hidden, lm_head = (0.3 * t.detach().to(dtype).double() for t in (hidden, lm_head))
    teacher = teacher_probabilities(final, lm_head).to(dtype).double()
    weights = torch.randn(rows, dtype=torch.float64)
    exact = hidden.clone().requires_grad_()
    logprobs = (exact @ lm_head.T).log_softmax(-1)
    mass = teacher[teacher_row].sum(-1)  # rounded to the dtype, a row need not sum to one
    loss = -(teacher[teacher_row] * logprobs).sum(-1) + (1 - mass) * (exact @ lm_head.T).logsumexp(-1)
    (expected,) = torch.autograd.grad((loss * weights).sum(), exact)

    leaf = hidden.to(device, dtype).requires_grad_()
    inputs = lm_head.to(dtype), teacher.to(dtype), teacher_row, token
    scores = losses_triton.LinearSoftCrossEntropy.apply(leaf, *(t.to(device) for t in inputs))
    (gradient,) = torch.autograd.grad((scores[0] * weights.to(device, dtype)).sum(), leaf)
    torch.testing.assert_close(scores[0].double().cpu(), loss.detach(), rtol=bound, atol=bound)
    torch.testing.assert_close(gradient.double().cpu(), expected, rtol=bound, atol=bound)
    own = logprobs.detach().gather(1, token.clamp(min=0)[:, None])[:, 0].masked_fill(token < 0, -torch.inf)
    torch.testing.assert_close(scores[1].double().cpu(), own, rtol=bound, atol=bound)
    sure = logprobs.topk(min(2, vocab)).values.diff().abs().sum(-1) > bound if vocab > 1 else torch.ones(rows) > 0
    assert torch.equal(scores[2].cpu()[sure], (logprobs.argmax(-1) == token)[sure])
    assert not scores[1].requires_grad and not scores[2].requires_grad


def test_only_the_loss_carries_gradients():
    hidden, lm_head, final, teacher_row, token = problem(5)
    scores = linear_soft_cross_entropy(hidden, lm_head, teacher_probabilities(final, lm_head), teacher_row, token)
    assert scores.loss.requires_grad and not scores.logprob.requires_grad and not scores.hit.requires_grad


def test_large_logits_stay_finite():
    hidden, lm_head, final, teacher_row, token = problem(8)
    scores = linear_soft_cross_entropy(
        hidden * 1e4, lm_head, teacher_probabilities(final, lm_head), teacher_row, token.clamp(min=0)
    )
    (gradient,) = torch.autograd.grad(scores.loss.sum(), hidden)
    assert scores.loss.isfinite().all() and scores.logprob.isfinite().all() and gradient.isfinite().all()


def test_schedule_warms_up_then_follows_a_cosine():
    options = OptimOptions(lr=2.0, warmup=0.1, min_lr=0.25)
    assert learning_rate(options, 0.0) < 0.01
    assert learning_rate(options, 0.05) == pytest.approx(1.0)
    assert learning_rate(options, 0.1) == pytest.approx(2.0)
    assert learning_rate(options, 0.55) == pytest.approx(2.0 * 0.625)
    assert learning_rate(options, 1.0) == learning_rate(options, 1.5) == pytest.approx(0.5)
