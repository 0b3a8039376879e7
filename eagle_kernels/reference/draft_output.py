"""draft_output in plain torch: projection and residual are summed in float32."""

from torch import Tensor

from eagle_kernels.reference.product import product
from eagle_kernels.reference.rms_norm import rms_norm


def draft_output(
    attention: Tensor,
    o_weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    o_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    hidden = (product(attention, o_weight, o_scale) + residual.float()).to(residual.dtype)
    return hidden, rms_norm(hidden, norm_weight, eps)
