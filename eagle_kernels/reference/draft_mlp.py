"""draft_mlp in plain torch: the activation is rounded once, after silu(gate) * up in float32."""

import torch
from torch import Tensor

from eagle_kernels.reference.product import product


def draft_mlp(
    normed: Tensor,
    gate_up_weight: Tensor,
    down_weight: Tensor,
    residual: Tensor,
    gate_up_scale: Tensor | None = None,
    down_scale: Tensor | None = None,
) -> Tensor:
    gate, up = product(normed, gate_up_weight, gate_up_scale).chunk(2, dim=-1)
    activation = (torch.nn.functional.silu(gate) * up).to(normed.dtype)
    return (product(activation, down_weight, down_scale) + residual.float()).to(residual.dtype)
