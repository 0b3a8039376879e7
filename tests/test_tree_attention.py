"""tree_attention: every backend against fp64, poisoned caches, and bitwise row-invariance on the CPU."""

import pytest
import torch
from compare import assert_bitwise, assert_close, poisoned, strided
from trees import random_tree_mask

import eagle_kernels
from eagle_kernels.reference.ancestor_mask import pack, unpack

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# (heads, kv heads, head_dim, rows), contexts: odd sizes, block edges at 128, empty contexts, one and two mask words, up
# to 64 packed rows a kv head and more
SHAPES = [
    ((9, 3, 64, 24), [100, 0, 127, 128]),
    ((4, 4, 5, 7), [129, 1]),
    ((16, 8, 128, 9), [300]),
    ((8, 2, 128, 33), [63, 400]),
    ((8, 1, 96, 65), [250, 3]),
    ((3, 3, 80, 128), [120, 0, 700]),
    ((2, 1, 256, 1), [2100, 13]),
    ((6, 2, 17, 60), [255, 256]),
]


def make_case(shape: tuple[int, int, int, int], contexts: list[int], dtype: torch.dtype, device: str = "cpu"):
    """Caches hold NaN in each row that no query may read."""
    heads, kv_heads, head_dim, rows = shape
    batch, length = len(contexts), max(contexts) + 64 * -(-rows // 64)
    mask = random_tree_mask(batch, rows)
    caches = [poisoned((batch, kv_heads, length, head_dim), dtype) for _ in range(2)]
    for b, context in enumerate(contexts):
        seen = torch.arange(length) < context
        seen[context : context + rows] = unpack(mask[b])[:, :rows].any(0)
        for cache in caches:
            cache[b, :, seen] = torch.randn(kv_heads, int(seen.sum()), head_dim).to(dtype)
    query = (torch.randn(batch, heads, rows, head_dim) * 2).to(dtype)
    context_len = torch.tensor(contexts, dtype=torch.int32)
    return [t.to(device) for t in (query, *caches, context_len, mask)] + [head_dim**-0.5]


def exact(query, key_cache, value_cache, context_len, ancestor_mask, scale, window=None, sinks=None) -> torch.Tensor:
    """One row at a time, over its own keys only, in fp64."""
    batch, heads, rows, head_dim = query.shape
    output = torch.zeros(batch, rows, heads, head_dim, dtype=torch.float64, device=query.device)
    bits, group = unpack(ancestor_mask), heads // key_cache.shape[1]
    for b in range(batch):
        context = int(context_len[b])
        for q in range(rows):
            tree = bits[b, q].nonzero()[:, 0].cpu()
            seen = torch.cat([torch.arange(context), context + tree])
            seen = seen if window is None else seen[-window:]
            keys, values = (c[b][:, seen].double().repeat_interleave(group, 0) for c in (key_cache, value_cache))
            scores = keys @ query[b, :, q].double()[:, :, None] * scale
            if sinks is not None:
                scores = torch.cat([scores, sinks.double()[:, None, None]], 1)
            output[b, q] = (scores.softmax(1)[:, : len(seen)] * values).sum(1)
    return output


@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
@pytest.mark.parametrize(("shape", "contexts"), SHAPES)
def test_matches_fp64(backend, device, dtype, shape, contexts, view):
    case = make_case(shape, contexts, dtype, device)
    case[:3] = [view(t) for t in case[:3]]
    tolerance = TOLERANCE[dtype] * (2 if backend == "triton" else 1)  # Triton sums whole blocks at once
    assert_close(eagle_kernels.tree_attention(*case), exact(*case), tolerance, tolerance)


def test_many_rows_over_long_contexts(device, dtype):
    """Llama-3.1-8B's heads: a block of any GPU goes through more tiles of keys than it holds at a time."""
    case = make_case((32, 8, 128, 60), [1700, 200], dtype, device)
    tolerance = TOLERANCE[dtype] * (2 if dtype == torch.float32 else 1)  # sums of 1,700 products
    assert_close(eagle_kernels.tree_attention(*case), exact(*case), tolerance, tolerance)


def test_reference_matches_fp64(dtype):
    case = make_case((6, 2, 17, 60), [255, 0], dtype)
    actual = eagle_kernels.tree_attention(*case, backend="reference")
    assert_close(actual, exact(*case), TOLERANCE[dtype], TOLERANCE[dtype])


def test_a_row_that_sees_nothing_is_zero(backend, device):
    query, key, value, context_len, mask, scale = make_case((4, 2, 64, 5), [0, 40], torch.float32, device)
    mask[:, 2] = 0
    for chosen in (backend, "reference"):
        output = eagle_kernels.tree_attention(query, key, value, context_len, mask, scale, backend=chosen)
        assert (output[0, 2] == 0).all()
        assert not output.isnan().any()


def test_rows_that_all_see_nothing_are_zero(backend, device, dtype):
    query, key, value, context_len, mask, scale = make_case((4, 2, 64, 5), [0, 0], dtype, device)
    output = eagle_kernels.tree_attention(query, key, value, context_len, mask * 0, scale)
    assert_bitwise(output, torch.zeros_like(output))


def test_rows_past_the_cache_are_not_read(backend, device):
    query, key, value, context_len, mask, scale = make_case((4, 2, 64, 9), [40], torch.float32, device)
    short = [key[:, :, :44], value[:, :, :44]]
    bits = unpack(mask)
    bits[..., 4:] = False
    wanted = eagle_kernels.tree_attention(query, *short, context_len, pack(bits), scale)
    assert_bitwise(eagle_kernels.tree_attention(query, *short, context_len, mask, scale), wanted)
    beyond = torch.full_like(context_len, 2**31 - 1)
    wanted = eagle_kernels.tree_attention(query, *short, torch.full_like(context_len, 44), mask * 0, scale)
    assert_bitwise(eagle_kernels.tree_attention(query, *short, beyond, mask, scale), wanted)


def test_large_scores_stay_finite(backend, device):
    case = make_case((2, 1, 64, 3), [200], torch.float32, device)
    case[0] *= 1e4
    assert_close(eagle_kernels.tree_attention(*case), exact(*case), 1e-3, 1e-3)


def committed(case: list, b: int, row: int) -> list:
    """The same row computed alone, after its ancestors were moved into the prefix; everything else is poison."""
    query, key, value, context_len, mask, scale = case
    context = int(context_len[b])
    tree = unpack(mask)[b, row].nonzero()[:, 0]
    total = context + len(tree)
    caches = [poisoned((1, t.shape[1], total + 5, t.shape[3]), t.dtype) for t in (key, value)]
    for cache, old in zip(caches, (key, value), strict=True):
        cache[0, :, :total] = old[b][:, torch.cat([torch.arange(context), context + tree])]
    alone = query[b : b + 1, :, row : row + 1]
    return [alone, *caches, torch.tensor([total], dtype=torch.int32), torch.zeros(1, 1, 1, dtype=torch.int64), scale]


@pytest.mark.parametrize(("shape", "contexts"), SHAPES)
def test_row_invariance(dtype, shape, contexts):
    """A row's bits are the same in the tree and alone after a commit, and for any number of threads."""
    case = make_case(shape, contexts, dtype)
    in_tree = eagle_kernels.tree_attention(*case)
    for b in range(len(contexts)):
        for row in {0, shape[3] // 2, shape[3] - 1}:
            alone = eagle_kernels.tree_attention(*committed(case, b, row))
            assert_bitwise(alone[0, 0], in_tree[b, row], f"request {b}, row {row}")
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_bitwise(eagle_kernels.tree_attention(*case), in_tree, "three threads")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("context", [0, 90, 120, 126, 127, 128, 250])
def test_row_invariance_of_a_chain_across_a_block_edge(dtype, context):
    """Ancestors that start in one block of keys and end in the next."""
    rows = 20
    case = make_case((6, 2, 64, rows), [context], dtype)
    case[1:3] = [torch.randn_like(t) for t in case[1:3]]
    case[4] = pack(torch.ones(1, rows, rows, dtype=torch.bool).tril())
    in_chain = eagle_kernels.tree_attention(*case)
    for row in range(rows):
        alone = eagle_kernels.tree_attention(*committed(case, 0, row))
        assert_bitwise(alone[0, 0], in_chain[0, row], f"row {row}")


def test_opcheck(device):
    case = make_case((4, 2, 16, 5), [10, 3], torch.float32, device)
    torch.library.opcheck(torch.ops.eagle_kernels.tree_attention.default, case)


def test_errors_name_op_and_tensor():
    query, key, value, context_len, mask, scale = make_case((4, 2, 16, 5), [10], torch.float32)
    with pytest.raises(RuntimeError, match="tree_attention: value_cache must have the dtype of query"):
        eagle_kernels.tree_attention(query, key, value.half(), context_len, mask, scale)
    with pytest.raises(RuntimeError, match="query has 3 heads, which is not a multiple of the 2 heads of key_cache"):
        eagle_kernels.tree_attention(query[:, :3], key, value, context_len, mask, scale)
    with pytest.raises(RuntimeError, match="tree_attention: the last dimension of query must be contiguous"):
        eagle_kernels.tree_attention(query.mT.contiguous().mT, key, value, context_len, mask, scale)
    with pytest.raises(RuntimeError, match="ancestor_mask must have 1 or 2 words a row, got 3"):
        eagle_kernels.tree_attention(query, key, value, context_len, mask.repeat(1, 1, 3), scale)
    wide = torch.zeros(1, 1, 1, 257)
    with pytest.raises(RuntimeError, match="head_dim must be between 1 and 256, got 257"):
        eagle_kernels.tree_attention(wide, wide, wide, context_len, mask[:, :1], scale)
