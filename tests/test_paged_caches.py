"""Paged caches: every op that takes a page table gives the bits that it gives on contiguous caches."""

from typing import Any

import pytest
import torch
from compare import assert_bitwise, assert_close
from draft_head import DraftHead
from hypothesis import given, settings
from hypothesis import strategies as st
from paged import WILD_IDS, gathered, padded, random_table, scattered, with_wild_ids
from test_draft_qkv_rope import make_case as draft_case
from test_tree_attention import TOLERANCE, committed, exact, make_case
from torch import Tensor

import eagle_kernels
from eagle_kernels.reference.ancestor_mask import pack, unpack

BACKENDS = ["cpp", "triton", "reference"]
LAYOUTS = pytest.mark.parametrize("heads_last", [False, True], ids=["heads first", "heads last"])
CACHES = ("key_cache", "value_cache")


def attention_cases(case: list[Any], page_size: int, heads_last: bool, shared: int = 0) -> tuple[list, list]:
    """An attention case on contiguous caches, and on paged ones of the same rows; nobody has three of the pages."""
    query, key, value, context_len, mask, scale = case
    columns = padded(key, page_size).shape[2] // page_size
    num_pages = len(query) * columns + 3
    table = random_table(len(query), columns, num_pages, shared)
    pools = [scattered(padded(cache, page_size), table, num_pages, heads_last) for cache in (key, value)]
    contiguous = [query, *(gathered(pool, table) for pool in pools), context_len, mask, scale]
    table = with_wild_ids(table, page_size, (context_len + query.shape[2]).tolist())
    return contiguous, [query, *pools, context_len, mask, scale, table]


def on(device: str, case: list[Any]) -> list[Any]:
    return [value.to(device) if isinstance(value, Tensor) else value for value in case]


@pytest.mark.parametrize(("page_size", "heads_last"), [(1, False), (3, True), (16, False), (16, True), (300, True)])
@pytest.mark.parametrize(
    ("shape", "contexts"), [((6, 2, 64, 9), [130, 0, 61]), ((2, 1, 20, 65), [40]), ((2, 2, 128, 1), [190])]
)
def test_attention(backend, device, dtype, shape, contexts, page_size, heads_last):
    contiguous, paged = attention_cases(make_case(shape, contexts, dtype), page_size, heads_last)
    expected = eagle_kernels.tree_attention(*on(device, contiguous))
    assert not expected.isnan().any()
    assert_bitwise(eagle_kernels.tree_attention(*on(device, paged)), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("page_size", [3, 16])
def test_attention_to_a_prefix_that_requests_share(backend, page_size):
    case = make_case((4, 2, 32, 5), [70, 64, 91], torch.float32)
    contiguous, paged = attention_cases(case, page_size, heads_last=False, shared=64 // page_size)
    assert_bitwise(contiguous[1][2, :, :60], contiguous[1][0, :, :60], "shared keys")
    expected = eagle_kernels.tree_attention(*contiguous, backend=backend)
    assert_bitwise(eagle_kernels.tree_attention(*paged, backend=backend), expected)


def without_rows(case: list[Any], missing: Tensor) -> list[Any]:
    """A contiguous case of one request in which some positions do not exist: the others move up."""
    query, key, value, context_len, mask, scale = case
    context, bits = int(context_len[0]), unpack(mask)
    tree = context + torch.arange(bits.shape[2])
    bits &= ~missing[tree.clamp(max=len(missing) - 1)]
    kept = torch.cat([(~missing[:context]).nonzero()[:, 0], torch.arange(context, key.shape[2])])
    shorter = context_len - missing[:context].sum().int()
    return [query, key[:, :, kept], value[:, :, kept], shorter, pack(bits), scale]


@pytest.mark.parametrize("page_size", [1, 7, 40])
def test_attention_does_not_see_rows_of_missing_pages(backend, device, dtype, page_size):
    """In the prefix and in the tree; wild ids in the middle of the table."""
    contiguous, paged = attention_cases(make_case((4, 2, 64, 12), [150], dtype), page_size, heads_last=False)
    table = paged[-1]
    hit = torch.tensor([5, 41, 42, 100, 153, 159]) // page_size
    table[0, hit] = torch.tensor(WILD_IDS, dtype=torch.int32)[torch.arange(len(hit)) % len(WILD_IDS)]
    missing = torch.zeros(table.shape[1], dtype=torch.bool).index_fill(0, hit, True).repeat_interleave(page_size)
    wanted = exact(*without_rows(contiguous, missing)).nan_to_num(0)  # a row that sees nothing
    tolerance = TOLERANCE[dtype] * (2 if backend == "triton" else 1)
    assert_close(eagle_kernels.tree_attention(*on(device, paged)), wanted.to(device), tolerance, tolerance)
    table.fill_(table.numel() + 3)
    assert_bitwise(eagle_kernels.tree_attention(*on(device, paged)).cpu(), torch.zeros_like(wanted, dtype=dtype))


def test_attention_of_a_row_is_the_same_after_a_commit_to_other_pages(dtype):
    case = make_case((6, 2, 64, 20), [120, 250], dtype)
    in_tree = eagle_kernels.tree_attention(*attention_cases(case, 16, heads_last=True)[1])
    for b, row in [(0, 0), (0, 13), (1, 19)]:
        alone = attention_cases(committed(case, b, row), 5, heads_last=False)[1]
        assert_bitwise(eagle_kernels.tree_attention(*alone)[0, 0], in_tree[b, row], f"request {b}, row {row}")


@LAYOUTS
@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_qkv_rope(backend, device, dtype, page_size, heads_last):
    """Rows go to their pages, and nowhere else: what is not written stays NaN. One row's page is missing."""
    head = DraftHead(dtype)
    case = draft_case(head)
    columns = padded(case["key_cache"], page_size).shape[2] // page_size
    table = random_table(head.batch, columns, head.batch * columns + 3)
    contiguous = case | {name: padded(case[name], page_size) for name in CACHES}
    pools = {name: scattered(contiguous[name], table, head.batch * columns + 3, heads_last) for name in CACHES}
    gone = int(case["cache_rows"][0, 1]) // page_size
    wild = table.clone()
    wild[0, gone] = WILD_IDS[0]
    contiguous["cache_rows"] = case["cache_rows"].clone()
    contiguous["cache_rows"][0, case["cache_rows"][0] // page_size == gone] = -1
    contiguous, paged = (
        dict(zip(c, on(device, list(c.values())), strict=True))
        for c in (contiguous, case | pools | {"page_table": wild})
    )
    expected = eagle_kernels.draft_qkv_rope(**contiguous)
    assert_bitwise(eagle_kernels.draft_qkv_rope(**paged), expected, "query")
    for name in CACHES:
        wanted = scattered(contiguous[name].cpu(), table, head.batch * columns + 3)
        assert_bitwise(paged[name].cpu(), wanted, name)


def compacted(cache: Tensor, table: Tensor, num_pages: int, path: list[Tensor]) -> Tensor:
    """What compact_kv makes of a contiguous cache [B, H, L, d] whose positions lie under a table, row by row."""
    accept_index, accept_length, context_len = path
    result, page_size = cache.clone(), cache.shape[2] // table.shape[1]
    there = ((table >= 0) & (table < num_pages)).repeat_interleave(page_size, dim=1)
    for b in range(len(cache)):
        for i in range(int(accept_length[b]) + 1):
            source, target = (int(context_len[b]) + step for step in (int(accept_index[b, i]), i))
            if source < cache.shape[2] and there[b, source] and there[b, target]:
                result[b, :, target] = result[b, :, source]
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_compaction(backend, data):
    """Any ascending paths, page sizes and missing pages: rows of the path move, and nothing else changes."""
    draw = data.draw
    page_size, columns, batch = (draw(st.integers(1, high)) for high in (6, 9, 3))
    length, num_pages = page_size * columns, batch * columns + 2
    torch.manual_seed(draw(st.integers(0, 2**31)))
    paths = [[0, *sorted(draw(st.sets(st.integers(1, 12), max_size=5)))] for _ in range(batch)]
    accept_index = torch.full((batch, 6), -1, dtype=torch.int32)
    for b, path in enumerate(paths):
        accept_index[b, : len(path)] = torch.tensor(path)
    accept_length = torch.tensor([len(path) - 1 for path in paths], dtype=torch.int32)
    context_len = torch.tensor([draw(st.integers(0, length)) for _ in paths], dtype=torch.int32)
    path = [accept_index, accept_length, context_len]

    table = random_table(batch, columns, num_pages)
    caches = [torch.randn(batch, heads, length, dim).to(torch.bfloat16) for heads, dim in [(2, 8), (1, 5)]]
    heads_last = draw(st.booleans())
    pools = [scattered(cache, table, num_pages, heads_last) for cache in caches]
    wild = torch.where(torch.rand(table.shape) < 0.1, draw(st.sampled_from([*WILD_IDS, num_pages])), table).int()
    expected = [scattered(compacted(cache, wild, num_pages, path), table, num_pages) for cache in caches]
    eagle_kernels.compact_kv(pools, *path, wild, backend=backend)
    for i, (pool, wanted) in enumerate(zip(pools, expected, strict=True)):
        assert_bitwise(pool, wanted, f"pool {i}")


def test_opcheck(device):
    attention = attention_cases(make_case((4, 2, 16, 5), [10, 3], torch.float32), 3, heads_last=True)[1]
    torch.library.opcheck(torch.ops.eagle_kernels.tree_attention.default, on(device, attention))
    table = random_table(2, 11, 25).to(device)
    head = DraftHead(torch.float32, device)
    pools = [head.random(25, head.kv_heads, 3, head.head_dim) for _ in range(2)]
    draft = draft_case(head) | dict(zip(CACHES, pools, strict=True)) | {"qkv_scale": None, "page_table": table}
    torch.library.opcheck(torch.ops.eagle_kernels.draft_qkv_rope.default, tuple(draft.values()))
    path = [torch.tensor(t, dtype=torch.int32, device=device) for t in ([[0, 3, 5], [0, 2, -1]], [2, 1], [9, 20])]
    torch.library.opcheck(torch.ops.eagle_kernels.compact_kv.default, (pools, *path, table))


def test_errors_name_op_and_tensor():
    query, key, value, context_len, mask, scale, table = attention_cases(
        make_case((4, 2, 16, 5), [10, 3], torch.float32), 4, heads_last=False
    )[1]
    case = query, key, value, context_len, mask, scale
    with pytest.raises(RuntimeError, match=r"tree_attention: page_table must be \[B, C\] with B = 2, got \[1, 19\]"):
        eagle_kernels.tree_attention(*case, table[:1])
    with pytest.raises(RuntimeError, match="tree_attention: page_table must be int32"):
        eagle_kernels.tree_attention(*case, table.long())
    with pytest.raises(RuntimeError, match=r"value_cache must be \[N, Hkv, S, d\] with N = 41, .*got \[40, 2, 4, 16\]"):
        eagle_kernels.tree_attention(query, key, value[:40], context_len, mask, scale, table)
    draft = draft_case(DraftHead(torch.float32)) | {"page_table": torch.zeros(2, 3, dtype=torch.int32)}
    with pytest.raises(RuntimeError, match="draft_qkv_rope: cache_rows holds 99, expected -1 <= index < 99"):
        eagle_kernels.draft_qkv_rope(**draft | {"cache_rows": torch.full_like(draft["cache_rows"], 99)})
    path = torch.zeros(2, 1, dtype=torch.int32), context_len * 0, context_len
    with pytest.raises(RuntimeError, match="compact_kv: caches must agree in num_pages and page_size, got 41 pages of"):
        eagle_kernels.compact_kv([key, value[:40]], *path, table)
