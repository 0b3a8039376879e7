"""tree_attention: tree rows over the committed cache and over their ancestors."""

import torch
from torch import Tensor

from eagle_kernels.backend import resolve


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
    *,
    backend: str | None = None,
) -> Tensor:
    """Attention of each tree row over every committed cache row and those of its ancestors, in fp32.

    Row q sees cache rows 0..context_len-1 and row context_len + j for each set bit j of ancestor_mask[q], or the last
    `window` of them; output[q] = sum_s softmax_s(scale * query[q] . key[s]) value[s]. No other cache row is read, but
    for committed rows from context_len - window on. A row that sees nothing returns zeros. On the CPU, a row's result
    is bitwise the same before and after its ancestors were moved into the prefix (compact_kv), in contiguous and in
    paged caches, and whatever the other rows, requests and threads are. Where the CPU has dot products of bfloat16
    (AVX-512 BF16), subnormal numbers count as zero in the scores of bfloat16 keys.

    query:         [B, num_heads, Q, d] float32, bfloat16 or float16, d <= 256; strided views welcome, last dimension
                   contiguous
    key_cache:     [B, num_kv_heads, L, d], dtype of query; strided likewise; num_heads % num_kv_heads == 0
    value_cache:   [B, num_kv_heads, L, d], dtype of query; strided likewise. On a GPU a NaN or infinity in a row that
                   one query row of a request sees, be it padding, may reach the others. With a page table, both are
                   pools [num_pages, num_kv_heads, page_size, d]; one of [num_pages, page_size, num_kv_heads, d] is
                   passed as its transpose(1, 2)
    context_len:   [B] int32, committed rows; rows from L on are never read
    ancestor_mask: [B, Q, W] int64, W = 1 or 2: bit j stands for cache row context_len + j
    scale:         factor on the scores, usually d ** -0.5
    page_table:    [B, L / page_size] int32, or None for contiguous caches: row t of request b is row t % page_size of
                   page page_table[b, t // page_size]. Requests may share pages. Rows of a page whose id is outside
                   0..num_pages-1 are not there: nothing sees them. Entries behind the visible rows may hold anything

    window:        how many rows a tree row sees at most, itself among them (sliding windows); at least 64 * W, so that
                   ancestors always are within. None for all
    sinks:         [num_heads], dtype of query, or None: a further score in the softmax of every row of a head, that
                   takes its weight and has no value

    Returns [B, Q, num_heads, d], dtype of query, contiguous: the layout of transformers' attention interface.
    Tree masks: SpecInfer (Miao et al., 2023, arXiv 2305.09781, section 4.2). Online softmax: Milakov and Gimelshein,
    2018, arXiv 1805.02867. Paged caches: Kwon et al., SOSP 2023, arXiv 2309.06180. Windows: Longformer (Beltagy et
    al., 2020, arXiv 2004.05150). Sinks: Xiao et al., 2023, arXiv 2309.17453; learnt scores in gpt-oss (2025, arXiv
    2508.10925).
    """
    return resolve("tree_attention", query, backend)(
        query, key_cache, value_cache, context_len, ancestor_mask, scale, page_table, window, sinks
    )


@torch.library.register_fake("eagle_kernels::tree_attention")
def _(
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
    return query.new_empty((batch, num_rows, num_heads, head_dim))
