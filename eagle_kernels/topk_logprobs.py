"""topk_logprobs: log-softmax and top-k of rows of logits in one pass."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def topk_logprobs(
    logits: Tensor, k: int, d2t: Tensor | None = None, *, backend: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The k most likely tokens of each row with their log-probabilities.

    logits: [rows, vocabulary] float32, bfloat16 or float16; strided rows welcome, last dimension contiguous
    k:      1 <= k <= min(vocabulary, 64)
    d2t:    [vocabulary] int32 or None, offset from a draft token id to the target's id

    Returns logprobs [rows, k] float32, descending, ties to the lowest id; token_ids [rows, k] int32, id + d2t[id];
    valid [rows] bool. A row with NaN or +inf, or all -inf, is not valid: logprobs -inf and ids 0..k-1 (+ d2t).
    """
    return resolve("topk_logprobs", logits, backend)(logits, k, d2t)


@torch.library.register_fake("eagle_kernels::topk_logprobs")
def _(logits: Tensor, k: int, d2t: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    rows = logits.shape[0]
    return (
        logits.new_empty((rows, k), dtype=torch.float32),
        logits.new_empty((rows, k), dtype=torch.int32),
        logits.new_empty((rows,), dtype=torch.bool),
    )
