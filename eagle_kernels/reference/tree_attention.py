"""tree_attention in plain torch."""

import torch
from torch import Tensor

from eagle_kernels.reference.ancestor_mask import unpack


def tree_attention(
    query: Tensor, key_cache: Tensor, value_cache: Tensor, context_len: Tensor, ancestor_mask: Tensor, scale: float
) -> Tensor:
    batch, num_heads, num_rows, head_dim = query.shape
    group = num_heads // key_cache.shape[1]
    output = query.new_zeros(batch, num_rows, num_heads, head_dim)
    for b in range(batch):
        cache_rows, visible = _visible_rows(int(context_len[b]), unpack(ancestor_mask[b]), key_cache.shape[2])
        keys = key_cache[b, :, cache_rows].float().repeat_interleave(group, dim=0)
        values = value_cache[b, :, cache_rows].float().repeat_interleave(group, dim=0)
        scores = (query[b].float() @ keys.mT * scale).masked_fill(~visible, -torch.inf)  # [heads, rows, visible rows]
        attention = scores.softmax(dim=-1) @ values
        sees_any = visible.any(dim=1)
        output[b, sees_any] = attention[:, sees_any].transpose(0, 1).to(output.dtype)
    return output


def _visible_rows(context: int, bits: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The cache rows that any query sees [S], and which query sees which [Q, S]."""
    prefix = torch.arange(context, device=bits.device)
    tree = bits.any(dim=0).nonzero()[:, 0]
    visible = torch.cat([bits.new_ones(bits.shape[0], context), bits[:, tree]], dim=1)
    cache_rows = torch.cat([prefix, context + tree])
    inside = cache_rows < length
    return cache_rows[inside], visible[:, inside]
