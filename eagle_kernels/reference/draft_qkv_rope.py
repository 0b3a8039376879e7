"""draft_qkv_rope in plain torch: projection, norms and rotation stay in float32, one rounding at the end."""

import torch
from torch import Tensor

from eagle_kernels.reference.page_table import locate
from eagle_kernels.reference.product import product


def draft_qkv_rope(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    rope_cos: Tensor,
    rope_sin: Tensor,
    position_ids: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    cache_rows: Tensor,
    num_heads: int,
    qkv_scale: Tensor | None = None,
    page_table: Tensor | None = None,
    q_norm_weight: Tensor | None = None,
    k_norm_weight: Tensor | None = None,
    norm_eps: float = 0.0,
) -> Tensor:
    batch, rows, _ = x.shape
    num_kv_heads, head_dim = key_cache.shape[1], key_cache.shape[3]
    qkv = product(x, qkv_weight, qkv_scale)
    if qkv_bias is not None:
        qkv = qkv + qkv_bias.float()
    qkv = qkv.view(batch, rows, num_heads + 2 * num_kv_heads, head_dim).transpose(1, 2)
    query, key, value = qkv.split([num_heads, num_kv_heads, num_kv_heads], dim=1)
    if q_norm_weight is not None and k_norm_weight is not None:
        query, key = _normed(query, q_norm_weight, norm_eps), _normed(key, k_norm_weight, norm_eps)

    cos, sin = rope_cos[position_ids.long()].unsqueeze(1), rope_sin[position_ids.long()].unsqueeze(1)
    key = _rotate(key, cos, sin).to(x.dtype)
    for b in range(batch):
        there, pages, cached = locate(key_cache, page_table, b, cache_rows[b].long())
        key_cache[pages[there], :, cached[there]] = key[b, :, there].transpose(0, 1)
        value_cache[pages[there], :, cached[there]] = value[b, :, there].transpose(0, 1).to(x.dtype)
    return _rotate(query, cos, sin).to(x.dtype)


def _normed(heads: Tensor, weight: Tensor, eps: float) -> Tensor:
    return heads * torch.rsqrt(heads.square().mean(dim=-1, keepdim=True) + eps) * weight.float()


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
