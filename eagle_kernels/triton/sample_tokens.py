"""sample_tokens in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.elementary import gumbel
from eagle_kernels.triton.common.philox import SAMPLE, philox_bits
from eagle_kernels.triton.common.ranking import LOWEST, key_id, key_value, rank_key
from eagle_kernels.triton.common.row_filter import find_keep, is_kept, load_logits, row_top, scaled

BLOCK = 4096


# grid: (batch * nodes)
@triton.jit
def sample_tokens_kernel(
    logits_ptr,
    position_ptr,
    seed_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    token_ptr,
    num_nodes,
    vocabulary,
    batch_stride,
    row_stride,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    b = place // num_nodes
    row_ptr = logits_ptr + b * batch_stride + place % num_nodes * row_stride

    best = row_top(row_ptr, vocabulary, BLOCK)
    row_max = key_value(best)
    valid = tl.abs(row_max) != float("inf")
    chosen = tl.where(valid, key_id(best), -1)

    temperature = tl.load(temperature_ptr + b)
    if valid & (temperature > 0):
        top_k, top_p, min_p = tl.load(top_k_ptr + b), tl.load(top_p_ptr + b), tl.load(min_p_ptr + b)
        floor, first_token = find_keep(row_ptr, vocabulary, top_k, top_p, min_p, row_max, temperature, BLOCK)

        # argmax of the scaled logit plus noise over what the filters keep, ties to the lowest token
        seed, position = tl.load(seed_ptr + b), tl.load(position_ptr + place)
        keys = tl.full((BLOCK,), LOWEST, tl.int64)
        for start in range(0, vocabulary, BLOCK):
            token = start + tl.arange(0, BLOCK)
            logit = load_logits(row_ptr, token, vocabulary)
            noise = gumbel(philox_bits(seed, position, SAMPLE, 0, start, BLOCK))
            keep = is_kept(logit, token, vocabulary, floor, first_token)
            score = scaled(logit, row_max, temperature) + noise
            keys = tl.maximum(keys, tl.where(keep, rank_key(score, token), LOWEST))
        chosen = key_id(tl.max(keys))
    tl.store(token_ptr + place, chosen)


def sample_tokens(
    logits: Tensor,
    position_ids: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
) -> Tensor:
    batch, num_nodes, vocabulary = logits.shape
    token_ids = torch.empty(batch, num_nodes, dtype=torch.int32, device=logits.device)
    if token_ids.numel():
        sample_tokens_kernel[(batch * num_nodes,)](
            logits,
            position_ids.contiguous(),
            seed,
            temperature,
            top_k,
            top_p,
            min_p,
            token_ids,
            num_nodes,
            vocabulary,
            *logits.stride()[:2],
            BLOCK=BLOCK,
            num_warps=8,
            enable_fp_fusion=False,
        )
    return token_ids
