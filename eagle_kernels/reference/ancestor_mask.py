"""Ancestor masks as int64 words: bit j of a row says that node j is its ancestor or itself."""

import torch
from torch import Tensor

WORD_BITS = 64


def pack(bits: Tensor) -> Tensor:
    """[..., N] bool -> [..., ceil(N / 64)] int64, little-endian bit order."""
    words = -(-bits.shape[-1] // WORD_BITS)
    padded = torch.nn.functional.pad(bits, (0, words * WORD_BITS - bits.shape[-1]))
    shifts = torch.arange(WORD_BITS, device=bits.device)
    return (padded.unflatten(-1, (words, WORD_BITS)).long() << shifts).sum(-1)


def unpack(words: Tensor) -> Tensor:
    """[..., W] int64 -> [..., 64 * W] bool."""
    shifts = torch.arange(WORD_BITS, device=words.device)
    return ((words[..., None] >> shifts) & 1).bool().flatten(-2)
