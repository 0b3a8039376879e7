"""Philox4x32-10 bits keyed by (seed, position, stream, token): Triton's own generator under the project's counter."""

import triton
import triton.language as tl

SAMPLE, DRAFT, ACCEPT, RESIDUAL, BONUS = (tl.constexpr(stream) for stream in range(5))


@triton.jit
def philox_bits(seed, position, stream, first_token, BLOCK: tl.constexpr):
    """The 32 bits of tokens first_token .. first_token + BLOCK - 1, a multiple of four: [BLOCK] uint32.

    key = (seed low word, seed high word), counter = (token >> 2, position, stream, 0), word token & 3 of the result.
    """
    block = first_token // 4 + tl.arange(0, BLOCK // 4)
    zero = tl.zeros((BLOCK // 4,), tl.int32)
    word0, word1, word2, word3 = tl.philox(seed, block, zero + position, zero + stream, zero)
    return tl.interleave(tl.interleave(word0, word2), tl.interleave(word1, word3))
