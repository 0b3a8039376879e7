"""lm_head_topk in plain torch: the whole row of logits, then topk_logprobs."""

from torch import Tensor

from eagle_kernels.reference.product import product
from eagle_kernels.reference.rms_norm import rms_norm
from eagle_kernels.reference.topk_logprobs import topk_logprobs


def lm_head_topk(
    hidden_states: Tensor,
    norm_weight: Tensor,
    eps: float,
    lm_head_weight: Tensor,
    k: int,
    d2t: Tensor | None = None,
    lm_head_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    normed = rms_norm(hidden_states, norm_weight, eps)
    logits = product(normed, lm_head_weight, lm_head_scale)
    logprobs, token_ids, valid = topk_logprobs(logits.flatten(0, 1), k, d2t)
    rows = hidden_states.shape[:2]
    return normed, logprobs.view(*rows, k), token_ids.view(*rows, k), valid.view(rows)
