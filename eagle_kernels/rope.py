"""rope: rotary position embedding of queries and keys, as transformers' apply_rotary_pos_emb."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


def rope(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Returns x * cos + rotate_half(x) * sin for x = query and x = key, with rotate_half((a, b)) = (-b, a).

    Each product and the sum are rounded to the dtype, as in eager mode (RoFormer, arXiv:2104.09864, with the halves
    layout of Llama).

    query:  [B, Hq, Q, d] float32, bfloat16 or float16; strided views welcome, last dimension contiguous
    key:    [B, Hkv, Q, d] same dtype; strided views welcome, last dimension contiguous
    cos:    [B, Q, d] same dtype
    sin:    [B, Q, d] same dtype
    returns query [B, Hq, Q, d] and key [B, Hkv, Q, d], same dtype, contiguous
    """
    return resolve("rope", query, backend)(query, key, cos, sin)


@torch.library.register_fake("eagle_kernels::rope")
def _(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape)
