"""tree_attention in plain torch."""

import torch
from torch import Tensor

from eagle_kernels.reference.ancestor_mask import unpack
from eagle_kernels.reference.page_table import locate


def tree_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_len: Tensor,
    ancestor_mask: Tensor,
    scale: float,
    page_table: Tensor | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    batch, num_heads, num_rows, head_dim = query.shape
    group = num_heads // key_cache.shape[1]
    output = query.new_zeros(batch, num_rows, num_heads, head_dim)
    for b in range(batch):
        positions, visible = _visible_positions(int(context_len[b]), unpack(ancestor_mask[b]), window)
        there, pages, rows = locate(key_cache, page_table, b, positions)
        visible, pages, rows = visible[:, there], pages[there], rows[there]
        keys = key_cache[pages, :, rows].float().repeat_interleave(group, dim=1).transpose(0, 1)
        values = value_cache[pages, :, rows].float().repeat_interleave(group, dim=1).transpose(0, 1)
        scores = (query[b].float() @ keys.mT * scale).masked_fill(~visible, -torch.inf)  # [heads, rows, visible rows]
        if sinks is not None:  # a score of every row, behind the others
            scores = torch.cat([scores, sinks.float()[:, None, None].expand(-1, num_rows, 1)], dim=-1)
        attention = scores.softmax(dim=-1)[..., : keys.shape[1]] @ values
        sees_any = visible.any(dim=1)
        output[b, sees_any] = attention[:, sees_any].transpose(0, 1).to(output.dtype)
    return output


def _visible_positions(context: int, bits: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """The positions that any query sees [S], and which query sees which [Q, S]."""
    keys = context + bits.sum(dim=1)  # of each query's sequence
    first = keys - keys if window is None else (keys - window).clamp(min=0)
    prefix = torch.arange(int(first.min()), context, device=bits.device)
    tree = bits.any(dim=0).nonzero()[:, 0]
    visible = torch.cat([prefix >= first[:, None], bits[:, tree]], dim=1)
    return torch.cat([prefix, context + tree]), visible
