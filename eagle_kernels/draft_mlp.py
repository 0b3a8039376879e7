"""draft_mlp: the draft layer's gated MLP with its residual."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def draft_mlp(
    normed: Tensor,
    gate_up_weight: Tensor,
    down_weight: Tensor,
    residual: Tensor,
    gate_up_scale: Tensor | None = None,
    down_scale: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Returns (silu(gate) * up) @ down_weight^T + residual, with gate and up halves of normed @ gate_up_weight^T.

    SwiGLU (Shazeer 2020, arXiv:2002.05202). silu(gate) * up is computed in float32 and rounded once to the dtype.

    normed:         [B, Q, H] float32, bfloat16 or float16; rows may be strided views
    gate_up_weight: [2 * I, H] same dtype or finite float8_e4m3fn, the I gate rows first
    down_weight:    [H, I] likewise
    residual:       [B, Q, H] same dtype as normed; rows may be strided views
    gate_up_scale:  [2 * I] float32, what the outputs of a float8_e4m3fn gate_up_weight are multiplied by, else None
    down_scale:     [H] float32, likewise of down_weight
    returns         [B, Q, H] same dtype as normed
    """
    return resolve("draft_mlp", normed, backend)(
        normed, gate_up_weight, down_weight, residual, gate_up_scale, down_scale
    )


@torch.library.register_fake("eagle_kernels::draft_mlp")
def _(
    normed: Tensor,
    gate_up_weight: Tensor,
    down_weight: Tensor,
    residual: Tensor,
    gate_up_scale: Tensor | None = None,
    down_scale: Tensor | None = None,
) -> Tensor:
    return residual.new_empty(residual.shape)
