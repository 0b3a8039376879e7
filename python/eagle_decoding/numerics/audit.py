"""Runs every op on every backend of a device and measures the outputs against the references in float64."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.numerics.cases import Sizes, op_inputs, variants
from eagle_decoding.numerics.exact import InDouble, copied, widened
from eagle_decoding.numerics.measures import Finding, measure_floats, measure_integers
from eagle_decoding.numerics.variation import variations
from eagle_kernels.reference.filters import filtered_scores
from eagle_kernels.reference.philox import SAMPLE, gumbel, philox_bits

SIZES = Sizes(
    hidden_size=96,
    intermediate_size=160,
    num_heads=6,
    num_kv_heads=2,
    head_dim=24,
    num_layers=2,
    vocab_size=700,
    draft_vocab_size=500,
    batch=4,
    context_len=150,
    num_nodes=6,
    max_depth=4,
    topk=5,
)
OUTPUTS = {
    "build_tree": ["draft_tokens", "parent", "depth", "position_ids", "ancestor_mask", "node_slots"],
    "commit_step": ["next_tokens", "next_hidden", "next_positions", "next_context_len"],
    "decoder_layers": ["hidden", "states", "caches"],
    "draft_output": ["hidden", "normed"],
    "draft_qkv_rope": ["query", "key_cache", "value_cache"],
    "expand_tree": [
        "next_scores",
        "next_slots",
        "next_tokens",
        "next_origin",
        "next_mask",
        "node_scores",
        "node_tokens",
        "node_parents",
    ],
    "lm_head_topk": ["normed", "logprobs", "token_ids", "valid"],
    "rope": ["query", "key"],
    "sample_children": ["child_tokens", "child_logprobs"],
    "topk_logprobs": ["logprobs", "token_ids", "valid"],
    "verify_rejection": ["accept_index", "accept_length", "bonus_token"],
    "verify_tree": ["accept_index", "accept_length", "bonus_token"],
    "write_kv": ["key_cache", "value_cache"],
}
ROUNDED_INSIDE = {"lm_head_topk"}  # the normed state has the input's dtype, the log-probabilities are float32
# arguments that an op writes to
WRITTEN = {
    "compact_kv": [0],
    "decoder_layers": [7],
    "draft_qkv_rope": [6, 7],
    "expand_tree": [5, 6, 7],
    "write_kv": [2, 3],
}


def audit(device: str, dtypes: list[torch.dtype]) -> Iterator[Finding]:
    """Yields a finding for each op, output, dtype and backend that can run on `device`; last, about drawn tokens."""
    for dtype in dtypes:
        for op, inputs in op_inputs(SIZES, dtype, device).items():
            yield from measured(op, inputs, {}, device, dtype)
            for variant, arguments, others in variants(op, inputs):
                for finding in measured(op, arguments, others, device, dtype):
                    yield replace(finding, op=f"{op}, {variant}")
    yield from variations(device)


def measured(
    op: str, inputs: tuple[Any, ...], others: dict[str, Any], device: str, dtype: torch.dtype
) -> Iterator[Finding]:
    """The findings of one call, its last arguments by name, on every backend."""
    exact = outputs_of(op, "reference", inputs, others, exactly=True)
    expected = outputs_of(op, "reference", inputs, others)
    for backend in runnable(op, device, dtype):
        actual = outputs_of(op, backend, inputs, others)
        yield from compare(op, backend, dtype, inputs, actual, expected, exact)


def runnable(op: str, device: str, dtype: torch.dtype) -> list[str]:
    """The backends that have the op for the device; Triton's interpreter computes bfloat16 wrongly and is left out."""
    found = []
    for backend in eagle_kernels.BACKENDS:
        if backend == "triton" and device == "cpu" and dtype == torch.bfloat16:
            continue
        if eagle_kernels.can_run(op, device, backend):
            found.append(backend)
    return found


def outputs_of(
    op: str, backend: str, inputs: tuple[Any, ...], others: dict[str, Any], exactly: bool = False
) -> list[Tensor]:
    """What an op returns, then what it writes to, on copies of its inputs."""
    arguments = [widened(value) if exactly else copied(value) for value in inputs]
    with InDouble() if exactly else nullcontext():
        result = getattr(eagle_kernels, op)(*arguments, **others, backend=backend)
    outputs = [] if result is None else [result] if isinstance(result, Tensor) else list(result)
    for place in WRITTEN.get(op, []):
        written = arguments[place]
        outputs += written if isinstance(written, list) else [written]
    return outputs


def compare(
    op: str,
    backend: str,
    dtype: torch.dtype,
    inputs: tuple[Any, ...],
    actual: list[Tensor],
    expected: list[Tensor],
    exact: list[Tensor],
) -> Iterator[Finding]:
    names = OUTPUTS.get(op) or [f"{i}" for i in range(len(actual))] if len(actual) > 1 else ["output"]
    for name, a, e, x in zip(names, actual, expected, exact, strict=True):
        finding = Finding(op, backend, str(dtype).removeprefix("torch."), name)
        if a.is_floating_point():
            measure_floats(finding, a, x, dtype if op in ROUNDED_INSIDE else a.dtype)
        else:
            measure_integers(finding, a, e, tie_gap(op, name, inputs, a, e, exact))
        yield finding


def tie_gap(
    op: str, output: str, inputs: tuple[Any, ...], actual: Tensor, expected: Tensor, exact: list[Tensor]
) -> Tensor | None:
    """How much worse the chosen token scores than the expected one in float64; None for outputs without ties."""
    if op == "sample_tokens":
        scores = exact_scores(*inputs)
        chosen, best = (scores.gather(-1, t.long().clamp(min=0)[..., None])[..., 0] for t in (actual, expected))
        return best - chosen
    if op in ("lm_head_topk", "topk_logprobs") and output == "token_ids":
        logprobs = exact[OUTPUTS[op].index("logprobs")]
        return torch.cat([logprobs[..., :-1] - logprobs[..., 1:], torch.zeros_like(logprobs[..., :1])], dim=-1)
    return None


def exact_scores(
    logits: Tensor, position_ids: Tensor, seed: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """What sample_tokens takes the argmax of, float64."""
    sampled = temperature > 0
    settings = (torch.where(sampled, temperature, 1.0), top_k, top_p, min_p)
    scores = filtered_scores(logits, *(value[:, None] for value in settings))
    scores = scores + gumbel(philox_bits(seed, position_ids, logits.shape[-1], SAMPLE))
    return torch.where(sampled[:, None, None], scores, logits.double())
