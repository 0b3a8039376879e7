"""draft_output in plain torch: projection and residual are summed in float32."""

from torch import Tensor

from eagle_kernels.reference.rms_norm import rms_norm


def draft_output(
    attention: Tensor, o_weight: Tensor, residual: Tensor, norm_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    hidden = (attention.float() @ o_weight.float().T + residual.float()).to(residual.dtype)
    return hidden, rms_norm(hidden, norm_weight, eps)
