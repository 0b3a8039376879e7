"""Keyed noise in plain torch: Philox4x32-10 bits by integer arithmetic, exponentials and Gumbels in float64."""

import torch
from torch import Tensor

SAMPLE, DRAFT, ACCEPT, RESIDUAL, BONUS = range(5)  # streams: independent noise for each purpose
_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox4x32(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox on int64 tensors that hold 32-bit words: four words in, four out.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        low0, high0 = _multiply(c0, _MULTIPLIERS[0])
        low1, high1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _multiply(a: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """Low and high word of a 32 by 32 bit product, through halves so that int64 never overflows."""
    low = a * (constant & 0xFFFF)
    middle = a * (constant >> 16) + (low >> 16)
    return ((middle << 16) | (low & 0xFFFF)) & _WORD, middle >> 16


def philox_bits(
    seed: Tensor, position_ids: Tensor, num_tokens: int, stream: int, node_ids: Tensor | None = None
) -> Tensor:
    """The 32 bits of each (request, position, stream, node, token): int64 [batch, rows, num_tokens].

    key = (seed low word, seed high word), counter = (token >> 2, position, stream, node), word token & 3 of the block.

    seed:         [batch] int64
    position_ids: [batch, rows] int32
    node_ids:     [batch, rows] int32, 0 by default
    """
    blocks = torch.arange((num_tokens + 3) // 4, device=seed.device)
    position = (position_ids.long() & _WORD)[..., None].expand(-1, -1, len(blocks))
    node = torch.zeros_like(position) if node_ids is None else (node_ids.long() & _WORD)[..., None].expand_as(position)
    key = (seed & _WORD)[:, None, None], ((seed >> 32) & _WORD)[:, None, None]
    counter = blocks.expand_as(position), position, torch.full_like(position, stream), node
    return torch.stack(philox4x32(counter, key), dim=-1).flatten(-2)[..., :num_tokens]


def uniform(bits: Tensor) -> Tensor:
    """Bits to float64 in (0, 1): (bits + 0.5) / 2^32, never 0 and never 1."""
    return (bits.double() + 0.5) * 2.0**-32


def exponential(bits: Tensor) -> Tensor:
    """-log(uniform) in float64; from the distance to 1 in the upper half, where the plain formula cancels."""
    return torch.where(bits < 2**31, -torch.log(uniform(bits)), -torch.log1p(-uniform(_WORD - bits)))


def gumbel(bits: Tensor) -> Tensor:
    """Standard Gumbel noise in float64: -log(exponential)."""
    return -torch.log(exponential(bits))
