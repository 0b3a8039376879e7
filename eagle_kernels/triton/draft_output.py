"""draft_output in Triton: a projection with its residual, then the norm of whole rows."""

from torch import Tensor

from eagle_kernels.triton.linear import project
from eagle_kernels.triton.rms_norm import rms_norm


def draft_output(
    attention: Tensor,
    o_weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    o_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    hidden = project(attention, o_weight, o_scale, None, residual)
    return hidden, rms_norm(hidden, norm_weight, eps)
