"""topk_logprobs in plain torch."""

import torch
from torch import Tensor

from eagle_kernels.reference.filters import valid_rows


def topk_logprobs(logits: Tensor, k: int, d2t: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    valid = valid_rows(logits)
    ordered, token_ids = logits.double().sort(dim=-1, descending=True, stable=True)
    logprobs = ordered[:, :k] - logits.double().logsumexp(-1, keepdim=True)
    logprobs = torch.where(valid[:, None], logprobs, -torch.inf).float()
    token_ids = torch.where(valid[:, None], token_ids[:, :k], torch.arange(k, device=logits.device))
    if d2t is not None:
        token_ids = token_ids + d2t[token_ids]
    return logprobs, token_ids.int(), valid
