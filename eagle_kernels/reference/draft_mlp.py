"""draft_mlp in plain torch: the activation is rounded once, after silu(gate) * up in float32."""

import torch
from torch import Tensor


def draft_mlp(normed: Tensor, gate_up_weight: Tensor, down_weight: Tensor, residual: Tensor) -> Tensor:
    gate, up = (normed.float() @ gate_up_weight.float().T).chunk(2, dim=-1)
    activation = (torch.nn.functional.silu(gate) * up).to(normed.dtype)
    return (activation.float() @ down_weight.float().T + residual.float()).to(residual.dtype)
