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


def tiles(*choices: tuple[int, int, int, int]) -> list[triton.Config]:
    """Configurations from (packed rows, cache rows, warps, stages)."""
    return [
        triton.Config({"BLOCK_M": rows, "BLOCK_N": columns}, num_warps=warps, num_stages=stages)
        for rows, columns, warps, stages in choices
    ]


SMALL_TILES = tiles((16, 64, 4, 3), (32, 64, 4, 3), (32, 32, 8, 3))
LARGE_TILES = tiles((64, 32, 8, 3))
WIDE_TILES = tiles((64, 64, 4, 3), (128, 64, 8, 3))
PLAIN_TILES = tiles((16, 16, 8, 3))  # float32, which tensor cores would round
OPERANDS_IN_SHARED_MEMORY = (90, 100)  # GPUs whose tensor cores read them there, which leaves registers for more sums


def fitting(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list[triton.Config]:
    """Configurations without idle blocks of rows, and with as many sums a thread as fit into registers.

    For the GPUs and models of tests/compile_gate.py, these do without spilling, but for (32, 32, 8, 3) on sm_100 and
    sm_120: the compiler spills eight bytes at head_dim 64, trees of 128 nodes, in pages, to run two programs at once.
    """
    query = arguments["query_ptr"]
    if query.dtype == torch.float32:
        return PLAIN_TILES
    wide = triton.runtime.driver.active.get_current_target().arch in OPERANDS_IN_SHARED_MEMORY
    most_rows = block_of(arguments["num_rows"] * arguments["group"], 16)
    head_dim, most_sums = block_of(arguments["head_dim"], 16), 64 if wide else 32

    def fits(config: triton.Config) -> bool:
        rows = config.kwargs["BLOCK_M"]
        return rows <= most_rows and rows * head_dim <= config.num_warps * 32 * most_sums

    return [config for config in SMALL_TILES + (WIDE_TILES if wide else LARGE_TILES) if fits(config)]


@triton.jit
def attend(query, keys, values, seen, loaded, dim, in_dim, factor, top, mass, sums):
    """Takes a block of cache rows into the online softmax, in base 2; `keys` and `values` point at rows."""
    key = tl.load(keys + dim[:, None], mask=in_dim[:, None] & loaded[None, :], other=0.0)
    scores = tl.where(seen, tl.dot(query, key, input_precision="ieee") * factor, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    anchor = tl.where(new_top == float("-inf"), 0.0, new_top)
    weight = tl.exp2(scores - anchor[:, None])
    shrink = tl.exp2(top - anchor)
    value = tl.load(values + dim[None, :], mask=loaded[:, None] & in_dim[None, :], other=0.0)
    sums = tl.dot(weight.to(value.dtype), value, sums * shrink[:, None], input_precision="ieee")
    return new_top, mass * shrink + tl.sum(weight, axis=1), sums


@triton.jit
def nodes_of(mask, words, in_rows):
    """How many bits are set in the ancestor masks that `mask` points at [BLOCK_M]."""
    count = tl.zeros_like(in_rows.to(tl.int32))
    for first in range(0, words * 64, 32):
        bits = (tl.load(mask + first // 64, mask=in_rows, other=0) >> (first % 64)).to(tl.uint32)
        bits -= (bits >> 1) & 0x55555555
        bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
        count += (((bits + (bits >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24).to(tl.int32)
    return count


# grid: (blocks of packed rows, batch * kv heads, splits); packed row = tree row * group + head of the group
@tuned(
    SMALL_TILES + LARGE_TILES + WIDE_TILES + PLAIN_TILES, key=["head_dim", "num_splits", "num_rows"], fitting=fitting
)
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
    window,
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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    b, kv_head = (tl.program_id(1) // num_kv_heads).to(tl.int64), tl.program_id(1) % num_kv_heads
    split = tl.program_id(2)
    row, head = packed // group, kv_head * group + packed % group
    in_rows = row < num_rows
    dim = tl.arange(0, BLOCK_D)
    in_dim = dim < head_dim

    query_row = b * query_batch_stride + head.to(tl.int64) * query_head_stride + row * query_row_stride
    query = tl.load(query_ptr + query_row[:, None] + dim[None, :], mask=in_rows[:, None] & in_dim[None, :], other=0.0)
    key_ptr += kv_head.to(tl.int64) * key_head_stride
    value_ptr += kv_head.to(tl.int64) * value_head_stride
    factor = scale * 1.4426950408889634  # log2(e)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    # committed rows within any window, of which every row of the tree sees its split's share
    context = tl.minimum(tl.load(context_ptr + b), length)
    begin = tl.maximum(context - window, 0) if HAS_WINDOW else 0
    if HAS_WINDOW:
        own_begin = context - window + nodes_of(mask_ptr + (b * num_rows + row) * words, words, in_rows)
    share = tl.cdiv(tl.cdiv(context - begin, num_splits - 1), BLOCK_N) * BLOCK_N
    start = begin + split * share
    stop = tl.minimum(start + share, context)
    for first in range(start, stop, BLOCK_N):
        position = first + tl.arange(0, BLOCK_N)
        page, cache_row, loaded = locate(page_table_ptr, columns, num_pages, page_size, b, position, position < stop)
        keys = key_ptr + (page * key_batch_stride + cache_row * key_row_stride)[None, :]
        values = value_ptr + (page * value_batch_stride + cache_row * value_row_stride)[:, None]
        seen = loaded[None, :]
        if HAS_WINDOW:
            seen = seen & (position[None, :] >= own_begin[:, None])
        top, mass, sums = attend(query, keys, values, seen, loaded, dim, in_dim, factor, top, mass, sums)

    # the tree's own rows, in the last split, of which bits say who sees them; sixteen at a time
    first_in_tree, column = tl.where(split == num_splits - 1, context, length), tl.arange(0, 16)
    for first in range(first_in_tree, tl.minimum(context + words * 64, length), 16):
        bit, position = first - context, first + column
        word = tl.load(mask_ptr + (b * num_rows + row) * words + bit // 64, mask=in_rows, other=0)
        bits = (word >> (bit % 64)).to(tl.int32)
        seen = ((bits[:, None] >> column[None, :]) & 1 != 0) & (position < length)[None, :]
        # rows that nobody sees stay unread, they may hold NaN
        wanted = tl.max(seen.to(tl.int32), axis=0) > 0
        page, cache_row, loaded = locate(page_table_ptr, columns, num_pages, page_size, b, position, wanted)
        keys = key_ptr + (page * key_batch_stride + cache_row * key_row_stride)[None, :]
        values = value_ptr + (page * value_batch_stride + cache_row * value_row_stride)[:, None]
        top, mass, sums = attend(
            query, keys, values, seen & loaded[None, :], loaded, dim, in_dim, factor, top, mass, sums
        )

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
    top_ptr,
    mass_ptr,
    sum_ptr,
    sink_ptr,
    output_ptr,
    num_splits,
    num_heads,
    head_dim,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_SINKS: tl.constexpr,
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
    if HAS_SINKS:  # weigh without a value
        mass += tl.exp2(tl.load(sink_ptr + tl.program_id(0) % num_heads).to(tl.float32) * 1.4426950408889634 - top)
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
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    batch, num_heads, num_rows, head_dim = query.shape
    num_kv_heads, pages = key_cache.shape[1], page_fields(key_cache, page_table)
    length = min(pages[1] * pages[3], MAX_POSITION)
    output = torch.empty(batch, num_rows, num_heads, head_dim, dtype=query.dtype, device=query.device)
    if not output.numel():
        return output
    group = num_heads // num_kv_heads
    packed_rows, block_d = num_rows * group, block_of(head_dim, 16)
    window = MAX_POSITION if window is None else min(window, MAX_POSITION)
    programs = triton.cdiv(packed_rows, 64) * batch * num_kv_heads
    num_splits = choose_splits(programs, min(length, window), query.device)
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
        window,
        ancestor_mask.shape[2],
        num_splits,
        *query.stride()[:3],
        *key_cache.stride()[:3],
        *value_cache.stride()[:3],
        BLOCK_D=block_d,
        HAS_WINDOW=window < MAX_POSITION,
    )
    combine_splits_kernel[(batch * num_rows * num_heads,)](
        top,
        mass,
        sums,
        top if sinks is None else sinks,
        output,
        num_splits,
        num_heads,
        head_dim,
        BLOCK_S=block_of(num_splits),
        BLOCK_D=block_d,
        HAS_SINKS=sinks is not None,
        num_warps=2,
    )
    return output


def choose_splits(programs: int, length: int, device: torch.device) -> int:
    """Splits that give every multiprocessor two programs: one for the tree's rows, up to 64 for the committed ones.

    The number depends on the cache's capacity, not on its content: no read-back, and a captured graph stays right.
    """
    wanted = triton.cdiv(2 * multiprocessors(device), programs)
    return 1 + max(1, min(wanted, triton.cdiv(length, ROWS_PER_SPLIT), 64))
