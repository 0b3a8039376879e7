"""sample_children in Triton: Gumbel top-k in one pass, after the filters and the fixed children were found."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.elementary import gumbel
from eagle_kernels.triton.common.launch import block_of
from eagle_kernels.triton.common.philox import DRAFT, philox_bits
from eagle_kernels.triton.common.ranking import LOWEST, key_value, ordered_bits, rank_key
from eagle_kernels.triton.common.row_filter import (
    MASS_UNIT,
    find_keep,
    is_kept,
    load_logits,
    mass_from,
    row_top,
    scaled,
)

BLOCK = 4096
HIGHEST = tl.constexpr(2**63 - 1)  # above every key


@triton.jit
def empty_list(capacity, LENGTH: tl.constexpr):
    """Room for the `capacity` largest keys: distinct values below every key, and HIGHEST in the places beyond."""
    place = tl.arange(0, LENGTH).to(tl.int64)
    return tl.where(place < capacity, LOWEST + place, HIGHEST)


@triton.jit
def keep_largest(largest, keys):
    """Puts the keys of a block into a list of the largest so far, as long as there is one that beats its smallest."""
    smallest, best = tl.min(largest), tl.max(keys)
    while best > smallest:
        largest = tl.where(largest == smallest, best, largest)
        keys = tl.where(keys == best, LOWEST, keys)
        smallest, best = tl.min(largest), tl.max(keys)
    return largest


@triton.jit
def child_key(fixed, value, token):
    """Orders by fixed, then by value, then by lowest token: 1 + 32 + 31 bits."""
    order = ((ordered_bits(value).to(tl.int64) + 2**31) << 31) | (0x7FFFFFFF - token).to(tl.int64)
    return tl.where(fixed, order, order + LOWEST)


# grid: (batch * nodes)
@triton.jit
def sample_children_kernel(
    logits_ptr,
    node_ptr,
    count_ptr,
    fixed_ptr,
    context_ptr,
    seed_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    d2t_ptr,
    token_ptr,
    logprob_ptr,
    num_nodes,
    vocabulary,
    max_children,
    batch_stride,
    row_stride,
    LENGTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    b = place // num_nodes
    row_ptr = logits_ptr + b * batch_stride + place % num_nodes * row_stride
    child = tl.arange(0, LENGTH)
    tokens = tl.full((LENGTH,), -1, tl.int32)
    logprobs = tl.full((LENGTH,), float("-inf"), tl.float32)

    row_max = key_value(row_top(row_ptr, vocabulary, BLOCK))
    count = tl.minimum(tl.load(count_ptr + place), max_children)
    if (tl.abs(row_max) != float("inf")) & (count > 0):
        # the law; at temperature 0 that of the logits themselves, and every child is fixed
        temperature = tl.load(temperature_ptr + b)
        greedy = temperature <= 0
        temperature = tl.where(greedy, 1.0, temperature)
        top_k = tl.where(greedy, 0, tl.load(top_k_ptr + b))
        top_p = tl.where(greedy, 1.0, tl.load(top_p_ptr + b))
        min_p = tl.where(greedy, 0.0, tl.load(min_p_ptr + b))
        num_fixed = tl.where(greedy, count, tl.minimum(tl.maximum(tl.load(fixed_ptr + place), 0), count))
        floor, first_token = find_keep(row_ptr, vocabulary, top_k, top_p, min_p, row_max, temperature, BLOCK)
        mass = mass_from(row_ptr, vocabulary, row_max, temperature, floor, first_token, BLOCK)
        log_mass = tl.log(mass.to(tl.float64) / MASS_UNIT)

        # the likeliest tokens, down to the last fixed one
        likeliest = empty_list(num_fixed, LENGTH)
        if num_fixed > 0:
            for start in range(0, vocabulary, BLOCK):
                token = start + tl.arange(0, BLOCK)
                logit = load_logits(row_ptr, token, vocabulary)
                keep = is_kept(logit, token, vocabulary, floor, first_token) & (logit > float("-inf"))
                likeliest = keep_largest(likeliest, tl.where(keep, rank_key(logit, token), LOWEST))
        last_fixed = tl.min(likeliest)

        # the children: those, then the others by their logit plus noise
        seed, position, node = tl.load(seed_ptr + b), tl.load(context_ptr + b), tl.load(node_ptr + place)
        children = empty_list(count, LENGTH)
        for start in range(0, vocabulary, BLOCK):
            token = start + tl.arange(0, BLOCK)
            logit = load_logits(row_ptr, token, vocabulary)
            keep = is_kept(logit, token, vocabulary, floor, first_token) & (logit > float("-inf"))
            fixed = rank_key(logit, token) >= last_fixed
            noise = gumbel(philox_bits(seed, position, DRAFT, node, start, BLOCK))
            value = tl.where(fixed, logit, scaled(logit, row_max, temperature) + noise)
            children = keep_largest(children, tl.where(keep, child_key(fixed, value, token), LOWEST))
        children = tl.sort(tl.where(children == HIGHEST, LOWEST, children), descending=True)

        drawn = children >= LOWEST + LENGTH
        tokens = 0x7FFFFFFF - (children & 0x7FFFFFFF).to(tl.int32)
        logit = tl.load(row_ptr + tokens, mask=drawn, other=0.0).to(tl.float32)
        logprob = (scaled(logit, row_max, temperature).to(tl.float64) - log_mass).to(tl.float32)
        logprobs = tl.where(drawn, logprob, float("-inf"))
        if d2t_ptr is not None:
            tokens += tl.load(d2t_ptr + tokens, mask=drawn, other=0)
        tokens = tl.where(drawn, tokens, -1)
    tl.store(token_ptr + place * max_children + child, tokens, mask=child < max_children)
    tl.store(logprob_ptr + place * max_children + child, logprobs, mask=child < max_children)


def sample_children(
    draft_logits: Tensor,
    node_ids: Tensor,
    num_children: Tensor,
    num_fixed: Tensor,
    context_len: Tensor,
    seed: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    max_children: int,
    d2t: Tensor | None,
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, vocabulary = draft_logits.shape
    child_tokens = torch.empty(batch, num_nodes, max_children, dtype=torch.int32, device=draft_logits.device)
    child_logprobs = torch.empty_like(child_tokens, dtype=torch.float32)
    if child_tokens.numel():
        sample_children_kernel[(batch * num_nodes,)](
            draft_logits,
            node_ids.contiguous(),
            num_children.contiguous(),
            num_fixed.contiguous(),
            context_len,
            seed,
            temperature,
            top_k,
            top_p,
            min_p,
            d2t,
            child_tokens,
            child_logprobs,
            num_nodes,
            vocabulary,
            max_children,
            *draft_logits.stride()[:2],
            LENGTH=block_of(max_children),
            BLOCK=BLOCK,
            num_warps=8,
            enable_fp_fusion=False,
        )
    return child_tokens, child_logprobs
