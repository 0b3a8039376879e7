"""Ranking by one integer: a 64-bit key orders pairs (value, id) by value, equal values by the lowest id.

The upper half is the value's bits made monotonic, the lower half counts down with the id. Keys are distinct, so the
maximum of a block is a value and where it was found, and the i-th best is the largest key below the (i-1)-th.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-(2**63))  # below every key


@triton.jit
def ordered_bits(values):
    """float32 -> int32 with the same order; both zeros give 0."""
    bits = tl.where(values == 0, 0.0, values).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def value_of(ordered):
    """The inverse of ordered_bits."""
    return tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.float32, bitcast=True)


@triton.jit
def rank_key(values, ids):
    return (ordered_bits(values).to(tl.int64) << 32) | (0x7FFFFFFF - ids).to(tl.int64)


@triton.jit
def key_value(key):
    return value_of((key >> 32).to(tl.int32))


@triton.jit
def key_id(key):
    return 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)
