"""lm_head_topk: final norm, output projection and top-k log-probabilities without storing the logits."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def lm_head_topk(
    hidden_states: Tensor,
    norm_weight: Tensor,
    eps: float,
    lm_head_weight: Tensor,
    k: int,
    d2t: Tensor | None = None,
    lm_head_scale: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the k likeliest next tokens of each row: top-k of log_softmax(rms_norm(hidden) @ lm_head_weight^T).

    Logits are float32 and live for one block of the vocabulary only: each block updates the row's log-sum-exp
    (online softmax, Milakov and Gimelshein 2018, arXiv:1805.02867) and its running top k.

    hidden_states:  [B, Q, H] float32, bfloat16 or float16; rows may be strided views
    norm_weight:    [H] same dtype
    eps:            of the norm
    lm_head_weight: [V, H] same dtype or finite float8_e4m3fn; V is the draft vocabulary
    k:              1 <= k <= min(V, 64)
    d2t:            [V] int32, added to a draft id to give the target's id, or None
    lm_head_scale:  [V] float32, what the logits of a float8_e4m3fn lm_head_weight are multiplied by, else None
    returns         normed    [B, Q, H] same dtype, rms_norm(hidden_states)
                    logprobs  [B, Q, k] float32, descending, ties to the lowest id
                    token_ids [B, Q, k] int32
                    valid     [B, Q] bool, False for a row whose logits hold NaN or +inf or are all -inf: its
                              logprobs are -inf and its ids 0..k-1 (+ d2t)
    """
    return resolve("lm_head_topk", hidden_states, backend)(
        hidden_states, norm_weight, eps, lm_head_weight, k, d2t, lm_head_scale
    )


@torch.library.register_fake("eagle_kernels::lm_head_topk")
def _(
    hidden_states: Tensor,
    norm_weight: Tensor,
    eps: float,
    lm_head_weight: Tensor,
    k: int,
    d2t: Tensor | None = None,
    lm_head_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = hidden_states.shape[:2]
    return (
        hidden_states.new_empty(hidden_states.shape),
        hidden_states.new_empty(*rows, k, dtype=torch.float32),
        hidden_states.new_empty(*rows, k, dtype=torch.int32),
        hidden_states.new_empty(rows, dtype=torch.bool),
    )
