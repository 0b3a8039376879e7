"""draft_qkv_rope in Triton: one kernel, or with norms, which need whole heads, a projection and one for the rest."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import as_elements, as_rows, block_of, row_block, tuned
from eagle_kernels.triton.common.page_table import locate, page_fields
from eagle_kernels.triton.common.products import (
    PRODUCT_CONFIGS,
    fitting_products,
    paired_rows,
    split_pairs,
    stream_products,
)
from eagle_kernels.triton.linear import project


@triton.jit
def store_pairs(pointers, first, second, half, inside):
    tl.store(pointers, first.to(pointers.dtype.element_ty), mask=inside)
    tl.store(pointers + half, second.to(pointers.dtype.element_ty), mask=inside)


class Heads(NamedTuple):
    """What becomes of projected heads; tensors are pointers in a kernel."""

    num_heads: int
    num_kv_heads: int
    half: int
    num_rows: int  # of a request
    cos: Tensor
    sin: Tensor
    table_stride: int
    positions: Tensor
    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    key_strides: tuple[int, ...]  # of a page, a head and a row
    value_strides: tuple[int, ...]
    cache_rows: Tensor
    pages: tuple[Tensor | None, int, int, int]


@triton.jit
def rotate_and_store(first, second, head, row, pair, in_rows, to):
    """Rotates pairs of [rows, pairs] of a head, unless it is a value's, and stores them where the head's rows go."""
    half, num_heads, num_kv_heads = to.half, to.num_heads, to.num_kv_heads
    inside = in_rows[:, None] & (pair < half)[None, :]
    if head < num_heads + num_kv_heads:
        position = tl.load(to.positions + row, mask=in_rows, other=0).to(tl.int64)
        table = position[:, None] * to.table_stride + pair[None, :]
        cos = tl.load(to.cos + table, mask=inside, other=0.0)
        sin = tl.load(to.sin + table, mask=inside, other=0.0)
        unrotated = first
        first = first * cos - second * sin
        second = second * cos + unrotated * sin

    # queries go to the output, keys and values to their cache rows
    b, q = row // to.num_rows, row % to.num_rows
    if head < num_heads:
        query_row = (b * num_heads + head) * to.num_rows + q
        store_pairs(to.query + query_row[:, None] * 2 * half + pair[None, :], first, second, half, inside)
    else:
        position = tl.load(to.cache_rows + row, mask=in_rows, other=-1)
        page_table, columns, num_pages, page_size = to.pages
        page, cache_row, there = locate(page_table, columns, num_pages, page_size, b, position, in_rows)
        written = inside & there[:, None]
        kv_head = head - num_heads
        if kv_head < num_kv_heads:
            page_stride, head_stride, row_stride = to.key_strides
            target = page * page_stride + kv_head * head_stride + cache_row * row_stride
            store_pairs(to.key_cache + target[:, None] + pair[None, :], first, second, half, written)
        else:
            kv_head -= num_kv_heads
            page_stride, head_stride, row_stride = to.value_strides
            target = page * page_stride + kv_head * head_stride + cache_row * row_stride
            store_pairs(to.value_cache + target[:, None] + pair[None, :], first, second, half, written)


# grid: (heads * slices of BLOCK_N / 2 rotation pairs, blocks of rows); heads: queries, keys, values
@tuned(PRODUCT_CONFIGS, key=["half", "width", "BLOCK_M"], fitting=fitting_products)
@triton.jit
def draft_qkv_rope_kernel(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    to,
    rows,
    half,
    width,
    x_stride,
    weight_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    slices = tl.cdiv(half, BLOCK_N // 2)
    head = (tl.program_id(0) // slices).to(tl.int64)
    pair = tl.program_id(0) % slices * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    row = tl.program_id(1).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_rows, in_pairs = row < rows, pair < half

    # project both elements of each rotation pair in one stream
    sums = stream_products(
        x_ptr,
        row,
        in_rows,
        x_stride,
        weight_ptr,
        scale_ptr,
        paired_rows(head * 2 * half + pair, half, BLOCK_N),
        paired_rows(pair, 0, BLOCK_N) < half,
        weight_stride,
        width,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
    )
    first, second = split_pairs(sums, BLOCK_M, BLOCK_N)
    if bias_ptr is not None:
        bias = bias_ptr + head * 2 * half + pair
        first += tl.load(bias, mask=in_pairs, other=0.0).to(tl.float32)[None, :]
        second += tl.load(bias + half, mask=in_pairs, other=0.0).to(tl.float32)[None, :]
    rotate_and_store(first, second, head, row, pair, in_rows, to)


# grid: (rows, heads); heads: queries, keys, values
@triton.jit
def norm_rope_kernel(projected_ptr, q_norm_ptr, k_norm_ptr, eps, to, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    head = tl.program_id(1).to(tl.int64)
    pair = tl.arange(0, BLOCK)
    half, in_pairs = to.half, pair < to.half
    projected = projected_ptr + (row[:, None] * (to.num_heads + 2 * to.num_kv_heads) + head) * 2 * half + pair[None, :]
    first = tl.load(projected, mask=in_pairs[None, :], other=0.0)
    second = tl.load(projected + half, mask=in_pairs[None, :], other=0.0)
    if head < to.num_heads + to.num_kv_heads:
        norm = (q_norm_ptr if head < to.num_heads else k_norm_ptr) + pair
        factor = tl.rsqrt(tl.sum(first * first + second * second, axis=1) / (2 * half) + eps)[:, None]
        first *= factor * tl.load(norm, mask=in_pairs, other=0.0).to(tl.float32)[None, :]
        second *= factor * tl.load(norm + half, mask=in_pairs, other=0.0).to(tl.float32)[None, :]
    rotate_and_store(first, second, head, row, pair, row >= 0, to)


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
    batch, num_rows, width = x.shape
    num_kv_heads, half = key_cache.shape[1], key_cache.shape[3] // 2
    query = torch.empty(batch, num_heads, num_rows, 2 * half, dtype=x.dtype, device=x.device)
    rows, heads = batch * num_rows, num_heads + 2 * num_kv_heads
    if not rows:
        return query
    to = Heads(
        num_heads,
        num_kv_heads,
        half,
        num_rows,
        rope_cos,
        rope_sin,
        rope_cos.stride(0),
        position_ids.contiguous(),
        query,
        key_cache,
        value_cache,
        key_cache.stride()[:3],
        value_cache.stride()[:3],
        cache_rows.contiguous(),
        page_fields(key_cache, page_table),
    )
    if q_norm_weight is None:
        inputs, block_m = as_rows(x), row_block(rows)
        draft_qkv_rope_kernel[
            lambda meta: (heads * triton.cdiv(half, meta["BLOCK_N"] // 2), triton.cdiv(rows, block_m))
        ](
            inputs,
            as_elements(qkv_weight),
            qkv_scale,
            qkv_bias,
            to,
            rows,
            half,
            width,
            inputs.stride(0),
            qkv_weight.stride(0),
            BLOCK_M=block_m,
        )
    else:
        projected = project(x, qkv_weight, qkv_scale, qkv_bias, None, torch.float32)
        norm_rope_kernel[rows, heads](
            projected, q_norm_weight, k_norm_weight, norm_eps, to, BLOCK=block_of(half), num_warps=1
        )
    return query
