"""Attention of the unrolled loop on a CPU: torch's flash kernel over the first step's keys, merged with own keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Span(NamedTuple):
    """The rows of one document, and the tokens whose keys they may see."""

    rows: slice
    tokens: slice


class FlashUnrolledAttention(torch.autograd.Function):
    """`unrolled_attention` of a pack's documents: apply(query, key, value, source, spans, *own_keys, *own_values).

    With s the log-sum-exp of a row's scores over the first step's keys and o the attention there, and z_i the scores of
    its own keys, the row's output is exp(s - S) o + sum_i exp(z_i - S) v_i, S = log(exp(s) + sum_i exp(z_i)). The
    flash kernel's backward needs only output and log-sum-exp of the whole softmax to give the gradients of its part.
    """

    @staticmethod
    def forward(ctx, query, key, value, source, spans, *own):  # type: ignore[no-untyped-def]
        heads, width = query.shape[1:]
        own_keys, own_values = own[: len(own) // 2], own[len(own) // 2 :]
        output, total = torch.empty_like(query), query.new_empty(query.shape[:2])
        for rows, _, parts in _documents(query, key, value, source, spans):
            attended, total_of_rows = FLASH(*parts.inputs, 0.0, False, attn_mask=parts.mask, scale=width**-0.5)
            output[rows], total[rows] = attended[0].transpose(0, 1), total_of_rows[0].T
        scores = [(query * _repeat(k, heads)).sum(-1) * width**-0.5 for k in own_keys]
        if own_keys:
            first, total = total, torch.stack((total, *scores)).logsumexp(0)
            output *= (first - total).exp_()[..., None]
        shares = [(score - total).exp_() for score in scores]
        for share, own_value in zip(shares, own_values, strict=True):
            output.addcmul_(share[..., None], _repeat(own_value, heads))
        ctx.save_for_backward(query, key, value, source, output, total, *shares, *own)
        ctx.spans = spans
        return output.flatten(1)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        query, key, value, source, output, total, *rest = ctx.saved_tensors
        (heads, width), count = query.shape[1:], len(rest) // 3
        shares, own_keys, own_values = rest[:count], rest[count : 2 * count], rest[2 * count :]
        grad = grad.view_as(query)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for rows, tokens, parts in _documents(query, key, value, source, ctx.spans):
            theirs = [x[rows].transpose(0, 1)[None] for x in (grad, output)]
            gradients = FLASH_BACKWARD(
                theirs[0], *parts.inputs, theirs[1], total[rows].T.contiguous()[None], 0.0, False,
                attn_mask=parts.mask, scale=width**-0.5,
            )  # fmt: skip
            of_rows, of_keys, of_values = (x[0].transpose(0, 1) for x in gradients)
            grad_query[rows] = of_rows
            grad_key[tokens], grad_value[tokens] = _gather(of_keys, key), _gather(of_values, value)
        mean = torch.linalg.vecdot(grad, output)
        grad_own_keys, grad_own_values = [], []
        for share, own_key, own_value in zip(shares, own_keys, own_values, strict=True):
            pull = share * (torch.linalg.vecdot(grad, _repeat(own_value, heads)) - mean) * width**-0.5
            grad_query.addcmul_(pull[..., None], _repeat(own_key, heads))
            grad_own_keys.append(_gather(pull[..., None] * query, key))
            grad_own_values.append(_gather(share[..., None] * grad, value))
        return grad_query, grad_key, grad_value, None, None, *grad_own_keys, *grad_own_values


class _Parts(NamedTuple):
    inputs: list[Tensor]
    mask: Tensor


def _documents(
    query: Tensor, key: Tensor, value: Tensor, source: Tensor, spans: list[Span]
) -> Iterator[tuple[slice, slice, _Parts]]:
    """Rows and tokens of each document with what the kernel reads: inputs [1, heads, rows or tokens, d] and a mask that
    hides the keys after each row's source."""
    heads = query.shape[1]
    for rows, tokens in spans:
        hidden = torch.arange(tokens.stop - tokens.start) > source[rows, None]
        mask = query.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[None, None]
        laid_out = (query[rows], _repeat(key[tokens], heads), _repeat(value[tokens], heads))
        yield rows, tokens, _Parts([x.transpose(0, 1)[None] for x in laid_out], mask)


def _repeat(states: Tensor, heads: int) -> Tensor:
    """[R, nkv, d] as [R, heads, d]: query heads of one group read the same key-value head."""
    group = heads // states.shape[1]
    return states if group == 1 else states.repeat_interleave(group, 1)


def _gather(gradient: Tensor, states: Tensor) -> Tensor:
    """The sum over query heads of one group: the gradient of `_repeat`."""
    return gradient.unflatten(1, (states.shape[1], -1)).sum(2) if gradient.shape[1] != states.shape[1] else gradient
