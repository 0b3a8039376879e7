"""draft_qkv_rope: a layer's QKV projection, norms of heads, rotary embedding and cache write in one pass."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


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
    *,
    backend: str | None = None,
) -> Tensor:
    """Projects x to queries, keys and values, rotates queries and keys, writes keys and values to the cache.

    (first, second) halves of a head become (first * cos - second * sin, second * cos + first * sin): the rotate-half
    convention of Llama (RoFormer, arXiv:2104.09864). With norms, each head of queries and keys first becomes
    head / sqrt(mean(head^2) + norm_eps) * weight, as in Qwen3. All stays in float32 and is rounded once.

    x:            [B, Q, A] float32, bfloat16 or float16
    qkv_weight:   [(num_heads + 2 * num_kv_heads) * d, A] same dtype or finite float8_e4m3fn; query heads, then key
                  heads, then value heads
    qkv_bias:     [(num_heads + 2 * num_kv_heads) * d] same dtype as x, or None
    rope_cos:     [P, d / 2] float32, a row per position
    rope_sin:     [P, d / 2] float32
    position_ids: [B, Q] int32, 0 <= position < P
    key_cache:    [B, num_kv_heads, L, d] same dtype as x, written in place; strided views welcome, last dimension
                  contiguous
    value_cache:  as key_cache. With a page table, both are pools [num_pages, num_kv_heads, page_size, d]
    cache_rows:   [B, Q] int32, the cache row of each token, distinct within a request; -1 writes nothing
    num_heads:    query heads
    qkv_scale:    [(num_heads + 2 * num_kv_heads) * d] float32, what the outputs of a float8_e4m3fn qkv_weight are
                  multiplied by, else None
    page_table:   [B, L / page_size] int32, or None for contiguous caches: row t of request b is row t % page_size of
                  page page_table[b, t // page_size]; an id outside 0..num_pages-1 is no page, and nothing is written.
                  A page that is written must belong to one request
    q_norm_weight, k_norm_weight: [d] same dtype as x, or both None for heads that are not normed
    norm_eps:     added to the mean of squares
    returns       [B, num_heads, Q, d] same dtype as x, the rotated queries
    """
    return resolve("draft_qkv_rope", x, backend)(
        x,
        qkv_weight,
        qkv_bias,
        rope_cos,
        rope_sin,
        position_ids,
        key_cache,
        value_cache,
        cache_rows,
        num_heads,
        qkv_scale,
        page_table,
        q_norm_weight,
        k_norm_weight,
        norm_eps,
    )


@torch.library.register_fake("eagle_kernels::draft_qkv_rope")
def _(
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
    return x.new_empty(x.shape[0], num_heads, x.shape[1], key_cache.shape[3])
