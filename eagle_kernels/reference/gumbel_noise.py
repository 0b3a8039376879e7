"""gumbel_noise in plain torch."""

from torch import Tensor

from eagle_kernels.reference.philox import gumbel, philox_bits


def gumbel_noise(seed: Tensor, position_ids: Tensor, num_tokens: int, stream: int) -> Tensor:
    return gumbel(philox_bits(seed, position_ids, num_tokens, stream)).float()
