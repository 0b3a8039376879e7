"""Calls of the ops that take fp8 weights, for tests of all of them at once: positional arguments and scales by name."""

from typing import Any

import test_draft_mlp
import test_draft_output
import test_draft_qkv_rope
import test_lm_head_topk
import torch
from draft_head import DraftHead
from torch import Tensor

from eagle_decoding.numerics.cases import with_fp8_weights

Call = tuple[tuple[Any, ...], dict[str, Tensor]]


def linear(head: DraftHead) -> Call:
    inputs = head.hidden_states(), head.weight(head.vocabulary, head.hidden), head.random(head.vocabulary)
    return with_fp8_weights("linear", inputs)


def draft_qkv_rope(head: DraftHead) -> Call:
    return with_fp8_weights("draft_qkv_rope", tuple(test_draft_qkv_rope.make_case(head).values()))


def draft_output(head: DraftHead) -> Call:
    return with_fp8_weights("draft_output", tuple(test_draft_output.make_case(head)))


def draft_mlp(head: DraftHead) -> Call:
    return with_fp8_weights("draft_mlp", tuple(test_draft_mlp.make_case(head)))


def lm_head_topk(head: DraftHead) -> Call:
    return with_fp8_weights("lm_head_topk", tuple(test_lm_head_topk.make_case(head, 10, d2t=True)))


CALLS = {call.__name__: call for call in (linear, draft_qkv_rope, draft_output, draft_mlp, lm_head_topk)}
CACHES = {"draft_qkv_rope": (6, 7)}  # arguments that are written to


def results_of(op: str, function: Any, arguments: tuple[Any, ...], scales: dict[str, Tensor]) -> list[Tensor]:
    """What a call returns, then what it writes, into copies."""
    written = CACHES.get(op, ())
    arguments = tuple(a.clone() if i in written else a for i, a in enumerate(arguments))
    result = function(*arguments, **scales)
    return [*(result if isinstance(result, tuple) else [result]), *(arguments[i] for i in written)]


def random_fp8(outputs: int, inner: int, device: str = "cpu", largest_exponent: int = 60) -> tuple[Tensor, Tensor]:
    """Every finite e4m3 number alike, the largest and the subnormal among them; scales of all sizes."""
    bits = torch.randint(254, (outputs, inner), dtype=torch.int16)
    weight = (bits + (bits >= 0x7F)).to(torch.uint8).view(torch.float8_e4m3fn)
    scale = torch.exp2(torch.empty(outputs).uniform_(-largest_exponent, largest_exponent))
    return weight.to(device), scale.to(device)
