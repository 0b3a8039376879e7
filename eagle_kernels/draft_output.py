"""draft_output: the draft layer's attention output projection, residual and norm."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def draft_output(
    attention: Tensor,
    o_weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    o_scale: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns hidden = attention @ o_weight^T + residual, summed in float32, and normed = rms_norm(hidden).

    attention:   [B, Q, A] float32, bfloat16 or float16
    o_weight:    [H, A] same dtype or finite float8_e4m3fn
    residual:    [B, Q, H] same dtype as attention; rows may be strided views
    norm_weight: [H] same dtype as attention
    eps:         of the norm
    o_scale:     [H] float32, what the outputs of a float8_e4m3fn o_weight are multiplied by, else None
    returns      hidden [B, Q, H] and normed [B, Q, H], same dtype as attention
    """
    return resolve("draft_output", attention, backend)(attention, o_weight, residual, norm_weight, eps, o_scale)


@torch.library.register_fake("eagle_kernels::draft_output")
def _(
    attention: Tensor,
    o_weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    eps: float,
    o_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return residual.new_empty(residual.shape), residual.new_empty(residual.shape)
