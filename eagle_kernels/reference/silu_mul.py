"""silu_mul in plain torch."""

from torch import Tensor
from torch.nn.functional import silu


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up
