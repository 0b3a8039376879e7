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
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns hidden = attention @ o_weight^T + residual, summed in float32, and normed = rms_norm(hidden).

    attention:   [B, Q, A] float32, bfloat16 or float16
    o_weight:    [H, A] same dtype
    residual:    [B, Q, H] same dtype; rows may be strided views
    norm_weight: [H] same dtype
    eps:         of the norm
    returns      hidden [B, Q, H] and normed [B, Q, H], same dtype
    """
    return resolve("draft_output", attention, backend)(attention, o_weight, residual, norm_weight, eps)


@torch.library.register_fake("eagle_kernels::draft_output")
def _(attention: Tensor, o_weight: Tensor, residual: Tensor, norm_weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return residual.new_empty(residual.shape), residual.new_empty(residual.shape)
