"""gumbel_noise: the keyed noise that sampling adds to the logits."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def gumbel_noise(
    seed: Tensor, position_ids: Tensor, num_tokens: int, stream: int = 0, *, backend: str | None = None
) -> Tensor:
    """Standard Gumbel noise keyed by (seed, position, stream, token): float32 [batch, rows, num_tokens].

    Philox4x32-10 (Salmon et al., SC 2011) with key = (seed low word, seed high word) and counter = (token >> 2,
    position, stream, 0); word token & 3 gives 32 bits, u = (bits + 0.5) / 2^32, noise = -log(-log(u)). No state: the
    same on every backend, whatever the batch, the row or the order of calls.

    seed:         [batch] int64
    position_ids: [batch, rows] int32, position of the token that is sampled
    num_tokens:   vocabulary size
    stream:       0 sample, 1 draft, 2 accept, 3 residual, 4 bonus
    """
    return resolve("gumbel_noise", seed, backend)(seed, position_ids, num_tokens, stream)


@torch.library.register_fake("eagle_kernels::gumbel_noise")
def _(seed: Tensor, position_ids: Tensor, num_tokens: int, stream: int) -> Tensor:
    return seed.new_empty((*position_ids.shape, num_tokens), dtype=torch.float32)
