"""A row of logits as a law: its maximum, and top-k, top-p and min-p as one threshold, found by bisection, not sorting.

All three filters keep a tail in the order (logit, token) (reference/filters.py). Logits are searched as ordered
integers: at most 32 halvings find the exact threshold, each one pass over the row.
"""

import triton
import triton.language as tl

from eagle_kernels.triton.common.elementary import exp
from eagle_kernels.triton.common.ranking import LOWEST, ordered_bits, rank_key

MASS_UNIT = tl.constexpr(2.0**44)  # probabilities add up as integers: exact, in any order, below 2^62


@triton.jit
def load_logits(row_ptr, token, vocabulary):
    return tl.load(row_ptr + token, mask=token < vocabulary, other=float("-inf")).to(tl.float32)


@triton.jit
def row_top(row_ptr, vocabulary, BLOCK: tl.constexpr):
    """The key of the row's maximum and of the lowest token that has it; NaN counts as +inf."""
    keys = tl.full((BLOCK,), LOWEST, tl.int64)
    for start in range(0, vocabulary, BLOCK):
        token = start + tl.arange(0, BLOCK)
        logit = load_logits(row_ptr, token, vocabulary)
        keys = tl.maximum(keys, rank_key(tl.where(logit != logit, float("inf"), logit), token))
    return tl.max(keys)


@triton.jit
def scaled(logit, row_max, temperature):
    """(logit - max) / temperature, rounded as on every backend."""
    return tl.div_rn(logit - row_max, temperature + tl.zeros_like(logit))


@triton.jit
def is_kept(logit, token, vocabulary, floor, first_token):
    """Whether the filters keep a token: (logit, token) is at least (floor, first_token)."""
    ordered = ordered_bits(logit)
    return (token < vocabulary) & ((ordered > floor) | ((ordered == floor) & (token >= first_token)))


@triton.jit
def load_ordered(row_ptr, token, vocabulary):
    return ordered_bits(load_logits(row_ptr, token, vocabulary))


@triton.jit
def weight_of(row_ptr, token, vocabulary, row_max, temperature):
    """round(2^44 exp((logit - max) / temperature)) as int64."""
    return (exp(scaled(load_logits(row_ptr, token, vocabulary), row_max, temperature)) * MASS_UNIT).to(tl.int64)


@triton.jit
def count_from(row_ptr, vocabulary, floor, BLOCK: tl.constexpr):
    """Tokens whose logit is at least `floor`."""
    count = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, vocabulary, BLOCK):
        token = start + tl.arange(0, BLOCK)
        count += ((load_ordered(row_ptr, token, vocabulary) >= floor) & (token < vocabulary)).to(tl.int32)
    return tl.sum(count)


@triton.jit
def mass_from(row_ptr, vocabulary, row_max, temperature, floor, first_token, BLOCK: tl.constexpr):
    """Mass of the tokens whose (logit, token) is at least (floor, first_token)."""
    mass = tl.zeros((BLOCK,), tl.int64)
    for start in range(0, vocabulary, BLOCK):
        token = start + tl.arange(0, BLOCK)
        ordered = load_ordered(row_ptr, token, vocabulary)
        kept = (ordered > floor) | ((ordered == floor) & (token >= first_token))
        mass += tl.where(kept, weight_of(row_ptr, token, vocabulary, row_max, temperature), 0)
    return tl.sum(mass)


@triton.jit
def top_k_floor(row_ptr, vocabulary, top_k, lowest, highest, BLOCK: tl.constexpr):
    """The top_k-th largest logit: the largest floor that top_k tokens reach. Its ties stay."""
    low, beyond = lowest.to(tl.int64), highest.to(tl.int64) + 1
    while beyond - low > 1:
        middle = low + (beyond - low) // 2
        enough = count_from(row_ptr, vocabulary, middle, BLOCK) >= top_k
        low = tl.where(enough, middle, low)
        beyond = tl.where(enough, beyond, middle)
    return low.to(tl.int32)


@triton.jit
def top_p_threshold(row_ptr, vocabulary, top_p, row_max, temperature, floor, highest, BLOCK: tl.constexpr):
    """The largest (logit, token) such that what is kept reaches top_p of the mass from `floor` on."""
    total = mass_from(row_ptr, vocabulary, row_max, temperature, floor, 0, BLOCK)
    target = tl.maximum(top_p.to(tl.float64) * total.to(tl.float64), 1.0)
    low, beyond = floor.to(tl.int64), highest.to(tl.int64) + 1
    while beyond - low > 1:
        middle = low + (beyond - low) // 2
        enough = mass_from(row_ptr, vocabulary, row_max, temperature, middle, 0, BLOCK).to(tl.float64) >= target
        low = tl.where(enough, middle, low)
        beyond = tl.where(enough, beyond, middle)
    floor = low.to(tl.int32)
    # of the tokens at the threshold the highest ids stay, as after a stable ascending sort
    first, end = tl.zeros_like(floor), vocabulary + tl.zeros_like(floor)
    while end - first > 1:
        middle = first + (end - first) // 2
        mass = mass_from(row_ptr, vocabulary, row_max, temperature, floor, middle, BLOCK)
        enough = mass.to(tl.float64) >= target
        first = tl.where(enough, middle, first)
        end = tl.where(enough, end, middle)
    return floor, first


@triton.jit
def min_p_floor(min_p, row_max, temperature):
    """The smallest float32 logit of at least min_p times the largest probability."""
    exact = row_max.to(tl.float64) + temperature.to(tl.float64) * tl.log(tl.minimum(min_p, 1.0).to(tl.float64))
    rounded = exact.to(tl.float32)
    return ordered_bits(rounded) + (rounded.to(tl.float64) < exact).to(tl.int32)


@triton.jit
def find_keep(row_ptr, vocabulary, top_k, top_p, min_p, row_max, temperature, BLOCK: tl.constexpr):
    """(floor, first_token) of what all filters keep, in transformers' order."""
    highest = ordered_bits(row_max)
    lowest = ordered_bits(row_max - float("inf"))
    floor, first_token = lowest, tl.zeros_like(lowest)
    if (top_k > 0) & (top_k < vocabulary):
        floor = top_k_floor(row_ptr, vocabulary, top_k, lowest, highest, BLOCK)
    if top_p < 1:
        floor, first_token = top_p_threshold(row_ptr, vocabulary, top_p, row_max, temperature, floor, highest, BLOCK)
    if min_p > 0:
        least = min_p_floor(min_p, row_max, temperature)
        first_token = tl.where(least > floor, 0, first_token)
        floor = tl.maximum(least, floor)
    return floor, first_token
