"""tree_attention in Triton: heads of a group packed with the tree's rows, the committed cache split among programs."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.common.launch import block_of, multiprocessors, tuned
from eagle_kernels.triton.common.page_table import locate, page_fields

ROWS_PER_SPLIT = 256  # no split gets fewer committed rows
MAX_POSITION = 2**31 - 1
BLOCK_N = 32  # cache rows at a time: half a mask word
CONFIGS = [
    triton.Config({"BLOCK_M": rows}, num_warps=warps, num_stages=stages)
    for rows, warps, stages in [(32, 8, 3), (16, 4, 3), (32, 8, 2), (64, 8, 3)]
]


def fitting(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list[triton.Config]:
    """Configurations without idle blocks of rows, and with sums and queries of at most 16 KB of bfloat16 a block.

    More does not fit into registers: on every GPU that tests/compile_gate.py knows, these do without spilling.
    """
    query = arguments["query_ptr"]
    wanted = block_of(arguments["num_rows"] * arguments["group"], 16)
    room = 16384 // (query.element_size() * block_of(arguments["head_dim"], 16))
    return [config for config in configs if config.kwargs["BLOCK_M"] <= max(min(wanted, room), 16)]


# grid: (blocks of packed rows, batch * kv heads, splits); packed row = tree row * group + head of the group
@tuned(CONFIGS, key=["head_dim", "num_splits", "num_rows"], fitting=fitting)
@triton.jit
def attend_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    context_ptr,
    mask_ptr,
    page_table_ptr,
    columns,
    num_pages,
    page_size,
    top_ptr,
    mass_ptr,
    sum_ptr,
    scale,
    num_rows,
    num_kv_heads,
    group,
    head_dim,
    length,
    words,
    num_splits,
    query_batch_stride,
    query_head_stride,
    query_row_stride,
    key_batch_stride,
    key_head_stride,
    key_row_stride,
    value_batch_stride,
    value_head_stride,
    value_row_stride,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    b, kv_head = (tl.program_id(1) // num_kv_heads).to(tl.int64), tl.program_id(1) % num_kv_heads
    split = tl.program_id(2)
    row, head = packed // group, kv_head * group + packed % group
    in_rows = row < num_rows
    dim, column = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    in_dim = dim < head_dim

    query_row = b * query_batch_stride + head.to(tl.int64) * query_head_stride + row * query_row_stride
    query = tl.load(query_ptr + query_row[:, None] + dim[None, :], mask=in_rows[:, None] & in_dim[None, :], other=0.0)
    key_ptr += kv_head.to(tl.int64) * key_head_stride
    value_ptr += kv_head.to(tl.int64) * value_head_stride
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    # cache rows of this program: a share of the committed ones, or in the last split those of the tree
    context = tl.minimum(tl.load(context_ptr + b), length)
    in_tree = split == num_splits - 1
    share = tl.cdiv(tl.cdiv(context, num_splits - 1), BLOCK_N) * BLOCK_N
    start = tl.where(in_tree, context, split * share)
    stop = tl.where(in_tree, tl.minimum(context + words * 64, length), tl.minimum(split * share + share, context))
    for first in range(start, stop, BLOCK_N):
        # every row sees the committed ones; bits say which of the tree's
        bit = tl.maximum(first - context, 0)
        word = tl.load(mask_ptr + (b * num_rows + row) * words + bit // 64, mask=in_rows, other=-1)
        word = tl.where(in_tree, word, -1)
        bits = (word >> (bit % 64)).to(tl.int32)
        seen = ((bits[:, None] >> column[None, :]) & 1 != 0) & in_rows[:, None] & (first + column < stop)[None, :]

        # scores; rows that nobody sees stay unread, they may hold NaN
        loaded = tl.max(seen.to(tl.int32), axis=0) > 0
        page, cache_row, loaded = locate(page_table_ptr, columns, num_pages, page_size, b, first + column, loaded)
        seen &= loaded[None, :]
        keys = key_ptr + (page * key_batch_stride + cache_row * key_row_stride)[None, :] + dim[:, None]
        key = tl.load(keys, mask=in_dim[:, None] & loaded[None, :], other=0.0)
        scores = tl.dot(query, key, input_precision="ieee") * (scale * 1.4426950408889634)
        scores = tl.where(seen, scores, float("-inf"))

        # online softmax in base 2
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        anchor = tl.where(new_top == float("-inf"), 0.0, new_top)
        weight = tl.exp2(scores - anchor[:, None])
        shrink = tl.exp2(top - anchor)
        top, mass = new_top, mass * shrink + tl.sum(weight, axis=1)
        values = value_ptr + (page * value_batch_stride + cache_row * value_row_stride)[:, None] + dim[None, :]
        value = tl.load(values, mask=loaded[:, None] & in_dim[None, :], other=0.0)
        sums = tl.dot(weight.to(value.dtype), value, sums * shrink[:, None], input_precision="ieee")

    # partial results, [splits, batch, rows, heads]
    partial = ((split.to(tl.int64) * (tl.num_programs(1) // num_kv_heads) + b) * num_rows + row) * (
        num_kv_heads * group
    ) + head
    tl.store(top_ptr + partial, top, mask=in_rows)
    tl.store(mass_ptr + partial, mass, mask=in_rows)
    tl.store(sum_ptr + partial[:, None] * head_dim + dim[None, :], sums, mask=in_rows[:, None] & in_dim[None, :])


# grid: (batch * rows * heads)
@triton.jit
def combine_splits_kernel(
    top_ptr, mass_ptr, sum_ptr, output_ptr, num_splits, head_dim, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64)
    split, dim = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    exists, in_dim = split < num_splits, dim < head_dim
    partial = split * tl.num_programs(0).to(tl.int64) + place
    tops = tl.load(top_ptr + partial, mask=exists, other=float("-inf"))
    masses = tl.load(mass_ptr + partial, mask=exists, other=0.0)
    sums = tl.load(
        sum_ptr + partial[:, None] * head_dim + dim[None, :], mask=exists[:, None] & in_dim[None, :], other=0.0
    )
    top = tl.max(tops)
    share = tl.exp2(tops - tl.where(top == float("-inf"), 0.0, top))
    mass = tl.sum(masses * share)
    # a row that sees nothing has no mass and gives zeros
    output = tl.sum(sums * share[:, None], axis=0) / tl.where(top == float("-inf"), 1.0, mass)
    tl.store(output_ptr + place * head_dim + dim, output.to(output_ptr.dtype.element_ty), mask=in_dim)


def tree_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    context_len: Tensor,
    ancestor_mask: Tensor,
    scale: float,
    page_table: Tensor | None = None,
) -> Tensor:
    batch, num_heads, num_rows, head_dim = query.shape
    num_kv_heads, pages = key_cache.shape[1], page_fields(key_cache, page_table)
    length = min(pages[1] * pages[3], MAX_POSITION)
    output = torch.empty(batch, num_rows, num_heads, head_dim, dtype=query.dtype, device=query.device)
    if not output.numel():
        return output
    group = num_heads // num_kv_heads
    packed_rows, block_d = num_rows * group, block_of(head_dim, 16)
    num_splits = choose_splits(triton.cdiv(packed_rows, 64) * batch * num_kv_heads, length, query.device)
    top = torch.empty(num_splits, batch, num_rows, num_heads, dtype=torch.float32, device=query.device)
    mass = torch.empty_like(top)
    sums = torch.empty(*top.shape, head_dim, dtype=torch.float32, device=query.device)
    attend_kernel[lambda meta: (triton.cdiv(packed_rows, meta["BLOCK_M"]), batch * num_kv_heads, num_splits)](
        query,
        key_cache,
        value_cache,
        context_len,
        ancestor_mask.contiguous(),
        *pages,
        top,
        mass,
        sums,
        scale,
        num_rows,
        num_kv_heads,
        group,
        head_dim,
        length,
        ancestor_mask.shape[2],
        num_splits,
        *query.stride()[:3],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        BLOCK_D=block_d,
        BLOCK_N=BLOCK_N,
    )
    combine_splits_kernel[(batch * num_rows * num_heads,)](
        top, mass, sums, output, num_splits, head_dim, BLOCK_S=block_of(num_splits), BLOCK_D=block_d, num_warps=2
    )
    return output


def choose_splits(programs: int, length: int, device: torch.device) -> int:
    """Splits that give every multiprocessor two programs: one for the tree's rows, up to 64 for the committed ones.

    The number depends on the cache's capacity, not on its content: no read-back, and a captured graph stays right.
    """
    wanted = triton.cdiv(2 * multiprocessors(device), programs)
    return 1 + max(1, min(wanted, triton.cdiv(length, ROWS_PER_SPLIT), 64))
