"""compact_kv: move the accepted rows of a draft tree to the front, in every cache at once."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def compact_kv(
    caches: list[Tensor],
    accept_index: Tensor,
    accept_length: Tensor,
    context_len: Tensor,
    *,
    backend: str | None = None,
) -> None:
    """Makes the accepted path of each request contiguous behind its committed rows, in place.

    For i in 0..accept_length: row context_len + accept_index[i] is copied to row context_len + i. Paths ascend
    (accept_index[i] >= i), so rows only move towards the front and no row is overwritten before it was read.

    caches:        list of [batch, num_kv_heads, length, head_dim] float32, bfloat16 or float16; strided views
                   welcome, last dimension contiguous
    accept_index:  [batch, max_depth + 1] int32, node ids from verify_tree, -1 padded
    accept_length: [batch] int32, accepted draft tokens
    context_len:   [batch] int32, committed rows
    """
    resolve("compact_kv", accept_index, backend)(caches, accept_index, accept_length, context_len)


@torch.library.register_fake("eagle_kernels::compact_kv")
def _(caches: list[Tensor], accept_index: Tensor, accept_length: Tensor, context_len: Tensor) -> None:
    return None
