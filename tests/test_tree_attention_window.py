"""tree_attention with windows and sinks: every backend against fp64, poison before the windows, bitwise invariance."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from test_paged_caches import attention_cases, on
from test_tree_attention import TOLERANCE, committed, exact, make_case

import eagle_kernels

# (heads, kv heads, head_dim, rows), contexts, window: shorter and longer than contexts, edges of blocks of 128 and of
# tiles of 64, windows as short as a mask allows, two mask words, few packed rows a kv head and many
CASES = [
    ((9, 3, 64, 24), [100, 0, 700, 128], 64),
    ((4, 4, 5, 7), [129, 1], 130),
    ((16, 8, 128, 9), [300], 173),
    ((8, 2, 128, 33), [63, 400, 192], 128),
    ((8, 1, 96, 65), [250, 3], 128),
    ((3, 3, 80, 128), [120, 0, 700], 200),
    ((2, 1, 256, 1), [2100, 13], 512),
    ((6, 2, 17, 60), [255, 256], 256),
]


def windowed(shape, contexts, window, dtype, device="cpu"):
    """A case, its window and sinks; rows of the caches before every row's window are NaN."""
    case = make_case(shape, contexts, dtype, device)
    for b, context in enumerate(contexts):
        for cache in case[1:3]:
            cache[b, :, : max(0, context - window)] = torch.nan
    sinks = (torch.randn(shape[0]) * 4).to(dtype).to(device)
    return case, {"window": window, "sinks": sinks}


@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
@pytest.mark.parametrize(("shape", "contexts", "window"), CASES)
def test_matches_fp64(backend, device, dtype, shape, contexts, window, view):
    case, extra = windowed(shape, contexts, window, dtype, device)
    case[:3] = [view(t) for t in case[:3]]
    tolerance = TOLERANCE[dtype] * (2 if backend == "triton" else 1)
    for given in (extra, {"window": window}):
        assert_close(eagle_kernels.tree_attention(*case, **given), exact(*case, **given), tolerance, tolerance)


def test_reference_matches_fp64(dtype):
    case, extra = windowed((6, 2, 17, 60), [255, 0], 100, dtype)
    actual = eagle_kernels.tree_attention(*case, **extra, backend="reference")
    assert_close(actual, exact(*case, **extra), TOLERANCE[dtype], TOLERANCE[dtype])


def test_sinks_alone(backend, device, dtype):
    """Larger and smaller than every score; a row that sees nothing stays zero."""
    case = make_case((4, 2, 64, 5), [0, 340], dtype, device)
    case[4][:, 2] = 0
    for sinks in ([0.0, 1.0, -1.0, 3.0], [200.0, -200.0, 60.0, -60.0]):
        scores = torch.tensor(sinks, dtype=dtype, device=device)
        actual = eagle_kernels.tree_attention(*case, sinks=scores)
        assert (actual[0, 2] == 0).all()
        assert_close(actual, exact(*case, sinks=scores), TOLERANCE[dtype] * 2, TOLERANCE[dtype] * 2)


def test_a_window_that_holds_everything_changes_no_bit(backend, device, dtype):
    case = make_case((6, 2, 64, 60), [255, 40], dtype, device)
    expected = eagle_kernels.tree_attention(*case)
    for window in (255 + 64, 2**31 - 1, 2**40):
        assert_bitwise(eagle_kernels.tree_attention(*case, window=window), expected)


@pytest.mark.parametrize(("shape", "contexts", "window"), CASES)
def test_row_invariance(dtype, shape, contexts, window):
    """A row's bits are the same in the tree and alone after a commit, and for any number of threads."""
    case, extra = windowed(shape, contexts, window, dtype)
    in_tree = eagle_kernels.tree_attention(*case, **extra)
    for b in range(len(contexts)):
        for row in {0, shape[3] // 2, shape[3] - 1}:
            alone = eagle_kernels.tree_attention(*committed(case, b, row), **extra)
            assert_bitwise(alone[0, 0], in_tree[b, row], f"request {b}, row {row}")
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_bitwise(eagle_kernels.tree_attention(*case, **extra), in_tree, "three threads")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("page_size", [1, 16])
def test_pages(backend, device, dtype, page_size):
    case, extra = windowed((6, 2, 64, 24), [300, 77], 90, dtype)
    contiguous, paged = (on(device, part) for part in attention_cases(case, page_size, heads_last=False))
    extra["sinks"] = extra["sinks"].to(device)
    expected = eagle_kernels.tree_attention(*contiguous, **extra)
    assert_bitwise(eagle_kernels.tree_attention(*paged, **extra), expected)


def test_ancestors_that_the_cache_lacks_count_in_the_window(backend, device):
    query, key, value, context_len, mask, scale = make_case((4, 2, 64, 9), [200], torch.float32, device)
    case = (query, key[:, :, :203], value[:, :, :203], context_len, mask, scale)
    mask[:] = 0x1FF
    wanted = eagle_kernels.tree_attention(*case, window=64, backend="reference")
    near = (query, key[:, :, 145:203], value[:, :, 145:203], context_len - 145, mask, scale)
    assert_close(wanted, eagle_kernels.tree_attention(*near, backend="reference"), 1e-6, 1e-6)
    assert_close(eagle_kernels.tree_attention(*case, window=64), wanted, 6e-6, 6e-6)


def test_opcheck(device):
    case, extra = windowed((4, 2, 16, 5), [100, 3], 64, torch.float32, device)
    torch.library.opcheck(torch.ops.eagle_kernels.tree_attention.default, case, extra)


def test_errors_name_op_and_argument():
    case = make_case((4, 2, 16, 65), [10], torch.float32)
    with pytest.raises(RuntimeError, match="window must be at least 128, as many rows as a mask has bits, got 127"):
        eagle_kernels.tree_attention(*case, window=127)
    with pytest.raises(RuntimeError, match=r"tree_attention: sinks must be \[Hq\] with Hq = 4, got \[2\]"):
        eagle_kernels.tree_attention(*case, sinks=torch.zeros(2))
    with pytest.raises(RuntimeError, match="tree_attention: sinks must have the dtype of query"):
        eagle_kernels.tree_attention(*case, sinks=torch.zeros(4, dtype=torch.float16))
