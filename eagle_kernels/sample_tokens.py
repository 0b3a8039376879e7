"""sample_tokens: one token per tree node from the target's logits."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def sample_tokens(
    logits: Tensor,
    position_ids: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """Samples after every node of every request: token_ids [batch, num_nodes] int32.

    Temperature, then top-k, top-p and min-p with the kept sets of transformers' warpers, then the Gumbel-max trick:
    argmax over kept tokens of logit / temperature + gumbel(seed, position, token), ties to the lowest id. The noise
    depends on nothing else, so a node draws the token that plain decoding with the same seed draws at that position.
    temperature <= 0 is argmax. A row with NaN or +inf, or all -inf, gives -1.

    logits:       [batch, num_nodes, vocabulary] float32, bfloat16 or float16; strided views welcome, last dimension
                  contiguous
    position_ids: [batch, num_nodes] int32, position of the token being sampled (context_len + depth + 1)
    seed:         [batch] int64
    temperature:  [batch] float32
    top_k:        [batch] int32, 0 = off; ties with the k-th value stay
    top_p:        [batch] float32, 1 = off
    min_p:        [batch] float32, 0 = off
    """
    return resolve("sample_tokens", logits, backend)(logits, position_ids, seed, temperature, top_k, top_p, min_p)


@torch.library.register_fake("eagle_kernels::sample_tokens")
def _(
    logits: Tensor,
    position_ids: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
) -> Tensor:
    return torch.empty_like(position_ids)
