"""tree_attention in Triton: heads of a group packed with the tree's rows, the committed cache split among programs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from eagle_kernels.triton.launch import block_of, multiprocessors, row_block, tuned

ROWS_PER_SPLIT = 256  # no split gets fewer committed rows
CONFIGS = [
    triton.Config({"BLOCK_N": columns}, num_warps=warps, num_stages=stages)  # BLOCK_N divides a mask word's 64 bits
    for columns, warps, stages in [(32, 4, 2), (64, 4, 2), (64, 8, 2)]
]


@triton.jit
def attend_block(query, top, mass, sums, keys, values, seen, in_dim, scale):
    """Online softmax over one block of cache rows, in base 2.

    query: [M, D]; keys: [D, N] and values: [N, D] pointers; seen: [M, N]; top, mass: [M]; sums: [M, D] float32
    """
    loaded = tl.max(seen.to(tl.int32), axis=0) > 0  # rows that nobody sees stay unread: they may hold NaN
    key = tl.load(keys, mask=in_dim[:, None] & loaded[None, :], other=0.0)
    scores = tl.dot(query, key, input_precision="ieee") * (scale * 1.4426950408889634)
    scores = tl.where(seen, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    anchor = tl.where(new_top == float("-inf"), 0.0, new_top)
    weight = tl.exp2(scores - anchor[:, None])
    shrink = tl.exp2(top - anchor)
    value = tl.load(values, mask=loaded[:, None] & in_dim[None, :], other=0.0)
    sums = tl.dot(weight.to(value.dtype), value, sums * shrink[:, None], input_precision="ieee")
    return new_top, mass * shrink + tl.sum(weight, axis=1), sums


# grid: (blocks of packed rows, batch * kv heads, splits); packed row = tree row * group + head of the group
@tuned(CONFIGS, key=["head_dim", "num_splits", "BLOCK_M"])
@triton.jit
def attend_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    context_ptr,
    mask_ptr,
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
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    b, kv_head = (tl.program_id(1) // num_kv_heads).to(tl.int64), tl.program_id(1) % num_kv_heads
    split = tl.program_id(2)
    row, head = packed // group, kv_head * group + packed % group
    in_rows = row < num_rows
    dim = tl.arange(0, BLOCK_D)
    in_dim = dim < head_dim

    query_row = b * query_batch_stride + head.to(tl.int64) * query_head_stride + row * query_row_stride
    query = tl.load(
        query_ptr + query_row[:, None] + dim[None, :], mask=in_rows[:, None] & in_dim[None, :], other=0.0
    )
    keys = key_ptr + b * key_batch_stride + kv_head.to(tl.int64) * key_head_stride + dim[:, None]
    values = value_ptr + b * value_batch_stride + kv_head.to(tl.int64) * value_head_stride + dim[None, :]
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    # this split's share of the committed rows, which every row sees
    context = tl.minimum(tl.load(context_ptr + b), length)
    share = tl.cdiv(tl.cdiv(context, num_splits), BLOCK_N) * BLOCK_N
    stop = tl.minimum(split * share + share, context)
    for first in range(split * share, stop, BLOCK_N):
        cache_row = (first + tl.arange(0, BLOCK_N)).to(tl.int64)
        seen = in_rows[:, None] & (cache_row < stop)[None, :]
        top, mass, sums = attend_block(
            query,
            top,
            mass,
            sums,
            keys + cache_row[None, :] * key_row_stride,
            values + cache_row[:, None] * value_row_stride,
            seen,
            in_dim,
            scale,
        )

    # the rows of the tree, by their bits: the first split's
    if split == 0:
        for first in range(0, tl.minimum(words * 64, length - context), BLOCK_N):
            bit = first + tl.arange(0, BLOCK_N)
            word = tl.load(mask_ptr + (b * num_rows + row) * words + first // 64, mask=in_rows, other=0)
            cache_row = (context + bit).to(tl.int64)
            seen = ((word[:, None] >> (bit % 64)[None, :].to(tl.int64)) & 1 != 0) & (cache_row < length)[None, :]
            top, mass, sums = attend_block(
                query,
                top,
                mass,
                sums,
                keys + cache_row[None, :] * key_row_stride,
                values + cache_row[:, None] * value_row_stride,
                seen,
                in_dim,
                scale,
            )

    # partial results, [splits, batch, rows, heads]
    partial = ((split.to(tl.int64) * (tl.num_programs(1) // num_kv_heads) + b) * num_rows + row) * (
        num_kv_heads * group
    ) + head
    tl.store(top_ptr + partial, top, mask=in_rows)
    tl.store(mass_ptr + partial, mass, mask=in_rows)
    tl.store(
        sum_ptr + partial[:, None] * head_dim + dim[None, :], sums, mask=in_rows[:, None] & in_dim[None, :]
    )


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
    query: Tensor, key_cache: Tensor, value_cache: Tensor, context_len: Tensor, ancestor_mask: Tensor, scale: float
) -> Tensor:
    batch, num_heads, num_rows, head_dim = query.shape
    num_kv_heads, length = key_cache.shape[1], key_cache.shape[2]
    output = torch.empty(batch, num_rows, num_heads, head_dim, dtype=query.dtype, device=query.device)
    if not output.numel():
        return output
    group = num_heads // num_kv_heads
    block_m, block_d = row_block(num_rows * group), block_of(head_dim, 16)
    row_blocks = triton.cdiv(num_rows * group, block_m)
    num_splits = choose_splits(row_blocks * batch * num_kv_heads, length, query.device)
    top = torch.empty(num_splits, batch, num_rows, num_heads, dtype=torch.float32, device=query.device)
    mass = torch.empty_like(top)
    sums = torch.empty(*top.shape, head_dim, dtype=torch.float32, device=query.device)
    attend_kernel[(row_blocks, batch * num_kv_heads, num_splits)](
        query,
        key_cache,
        value_cache,
        context_len,
        ancestor_mask.contiguous(),
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
        BLOCK_M=block_m,
        BLOCK_D=block_d,
    )
    combine_splits_kernel[(batch * num_rows * num_heads,)](
        top, mass, sums, output, num_splits, head_dim, BLOCK_S=block_of(num_splits), BLOCK_D=block_d, num_warps=2
    )
    return output


def choose_splits(programs: int, length: int, device: torch.device) -> int:
    """Splits of the committed rows that give every multiprocessor two programs, a power of two up to 64.

    It depends on the cache's capacity, not on its content: no read-back, and a captured graph stays right.
    """
    wanted = triton.cdiv(2 * multiprocessors(device), programs)
    return min(block_of(min(wanted, triton.cdiv(length, ROWS_PER_SPLIT))), 64)
