"""Draws many tokens of one row and compares their frequencies with the law that they should follow."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.numerics.measures import Finding, measure_variation
from eagle_kernels.reference.filters import filtered_scores

DRAWS = 20_000
FEW_DRAWS = {"sample_tokens": 200, "sample_children": 200, "verify_rejection": 60}  # where a draw takes milliseconds
VOCABULARY = 16
SETTINGS = {"temperature": (0.8, 0, 1.0), "top-k": (1.0, 7, 1.0), "top-p": (1.0, 0, 0.8)}


def variations(device: str) -> Iterator[Finding]:
    """A finding for each sampling op, backend and kind of filter."""
    logits = torch.linspace(2, -2, VOCABULARY, device=device)
    for op, draw in {"sample_tokens": tokens, "sample_children": children, "verify_rejection": rejections}.items():
        for backend in eagle_kernels.BACKENDS:
            if not eagle_kernels.can_run(op, device, backend):
                continue
            slow = device == "cpu" and backend == "triton"
            draws = DRAWS if device == "cuda" or backend == "cpp" else FEW_DRAWS[op]
            for name in list(SETTINGS)[: 1 if slow else None]:  # the interpreter searches thresholds for a second a row
                settings = SETTINGS[name]
                scores = filtered_scores(logits, *(torch.tensor(value, device=device) for value in (*settings, 0.0)))
                finding = Finding(op, backend, "float32", f"law under {name}, {draws} draws")
                measure_variation(finding, draw(logits, draws, settings, backend), scores.softmax(-1))
                yield finding


def requests(count: int, settings: tuple[float, int, float], device: torch.device) -> dict[str, Any]:
    """Sampling parameters of `count` requests with seeds of their own."""
    temperature, top_k, top_p = settings
    return {
        "seed": torch.arange(count, device=device) + 11,
        "temperature": torch.full((count,), temperature, device=device),
        "top_k": torch.full((count,), top_k, dtype=torch.int32, device=device),
        "top_p": torch.full((count,), top_p, device=device),
        "min_p": torch.zeros(count, device=device),
    }


def tokens(logits: Tensor, draws: int, settings: tuple[float, int, float], backend: str) -> Tensor:
    """The tokens of sample_tokens at as many positions."""
    positions = torch.arange(draws, dtype=torch.int32, device=logits.device)[None]
    params = requests(1, settings, logits.device)
    return eagle_kernels.sample_tokens(logits.expand(1, draws, -1), positions, **params, backend=backend)


def children(logits: Tensor, draws: int, settings: tuple[float, int, float], backend: str) -> Tensor:
    """The first children of as many nodes."""
    nodes = torch.arange(draws, dtype=torch.int32, device=logits.device)[None]
    params = requests(1, settings, logits.device)
    drawn, _ = eagle_kernels.sample_children(
        logits.expand(1, draws, -1), nodes, torch.full_like(nodes, 2), nodes[:, 0].contiguous(), **params,
        max_children=2, backend=backend,
    )  # fmt: skip
    return drawn[..., 0]


def rejections(logits: Tensor, draws: int, settings: tuple[float, int, float], backend: str) -> Tensor:
    """The first emitted tokens of as many requests that drafted two siblings from the reversed law."""
    device, params = logits.device, requests(draws, settings, logits.device)
    draft_logits = logits.flip(0).expand(draws, 3, -1)
    context_len = torch.zeros(draws, dtype=torch.int32, device=device)
    root = context_len[:, None]
    drawn, _ = eagle_kernels.sample_children(
        draft_logits[:, :1], root, root + 2, context_len, **params, max_children=2, backend="reference"
    )
    draft_tokens = torch.cat([root, drawn[:, 0]], dim=1)
    parent = torch.tensor([-1, 0, 0], dtype=torch.int32, device=device).repeat(draws, 1)
    accept_index, accept_length, bonus_token = eagle_kernels.verify_rejection(
        logits.expand(draws, 3, -1), draft_logits, draft_tokens, parent, context_len, **params, backend=backend
    )
    accepted = draft_tokens.gather(1, accept_index[:, 1:2].clamp(min=0).long())[:, 0]
    return torch.where(accept_length > 0, accepted, bonus_token)
