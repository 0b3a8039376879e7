"""What the benchmarks of sampling share: logits like a language model's, settings by name, laws in plain torch."""

from typing import Any

import torch
from torch import Tensor

from eagle_decoding.numerics.cases import Maker

SETTINGS = {  # temperature, top_k, top_p, min_p
    "greedy": (0.0, 0, 1.0, 0.0),
    "temperature": (1.0, 0, 1.0, 0.0),
    "top-k, top-p": (0.8, 50, 0.9, 0.0),
}
VARIANTS: dict[str, dict[str, Any]] = {name: {"settings": name} for name in SETTINGS}


def language_model_logits(make: Maker, *shape: int) -> Tensor:
    """Noise around a Zipf law: about the entropy of a language model's rows."""
    rank = torch.rand(shape, device=make.device).argsort(-1) + 1
    return (torch.randn(shape, device=make.device) - 1.6 * rank.log() + 12).to(make.dtype)


def request_settings(make: Maker, batch: int, settings: str) -> tuple[Tensor, ...]:
    """seed, temperature, top_k, top_p, min_p: [batch] each."""
    temperature, top_k, top_p, min_p = SETTINGS[settings]
    return (
        make.tensor([7] * batch, torch.int64),
        make.tensor([temperature] * batch, torch.float32),
        make.tensor([top_k] * batch),
        make.tensor([top_p] * batch, torch.float32),
        make.tensor([min_p] * batch, torch.float32),
    )


def filtered_law(logits: Tensor, temperature: Tensor, top_p: Tensor, top_k: int) -> Tensor:
    """softmax(logits / temperature) under top-k and then top-p, by torch's topk and a sort."""
    scores = logits.float() / temperature[:, None, None]
    values, token_ids = scores.topk(top_k)  # descending: top-p needs no other sort
    probs = values.softmax(-1)
    probs = probs.masked_fill(probs.cumsum(-1) - probs >= top_p[:, None, None], 0)
    return torch.zeros_like(scores).scatter(-1, token_ids, probs)
