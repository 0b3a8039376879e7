"""Attention's windows and sinks in the CUDA kernels, run on the CPU by tests/cuda_emulation. Needs no GPU."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from cuda_emulation import emulated_products
from test_cuda_emulation_products import heads_last, hopper, multiprocessors
from test_paged_caches import attention_cases
from test_tree_attention import TOLERANCE, exact, make_case
from test_tree_attention_window import windowed

__all__ = ["hopper", "multiprocessors"]  # fixtures

# heads, kv heads, head_dim and rows, contexts, window: every instance of the kernel; windows that begin within a tile
# of keys, with it, and before the cache
CASES = [
    ((4, 2, 64, 5), [200, 0], 64),
    ((9, 3, 64, 24), [163, 256], 128),
    ((8, 1, 96, 20), [170], 90),
    ((4, 1, 128, 40), [190], 100),
    ((2, 1, 128, 7), [600], 300),
    ((2, 2, 256, 9), [250, 3], 70),
    ((3, 3, 80, 65), [240], 129),
    ((4, 4, 5, 7), [129, 1], 65),
]
WARPGROUP_CASES = [
    ((4, 1, 64, 17), [200, 0], 64),
    ((8, 2, 128, 33), [63, 400], 128),
    ((3, 1, 104, 60), [390], 101),
    ((2, 1, 48, 65), [7], 128),
]


@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
@pytest.mark.parametrize(("shape", "contexts", "window"), CASES)
def test_windows(multiprocessors, dtype, shape, contexts, window, view):
    check(dtype, shape, contexts, window, view)


@pytest.mark.parametrize("view", [torch.clone, heads_last], ids=["contiguous", "heads last"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "contexts", "window"), WARPGROUP_CASES)
def test_windows_by_warpgroups(hopper, dtype, shape, contexts, window, view):
    check(dtype, shape, contexts, window, view)


def check(dtype, shape, contexts, window, view):
    case, extra = windowed(shape, contexts, window, dtype)
    case[:3] = [view(t) for t in case[:3]]
    for given in (extra, {"window": window}):
        actual = emulated_products.tree_attention(*case, **given)
        assert_close(actual, exact(*case, **given), TOLERANCE[dtype], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sinks_larger_and_smaller_than_every_score(multiprocessors, dtype):
    case, sinks = make_case((4, 2, 64, 5), [0, 340], dtype), torch.tensor([200.0, -200.0, 60.0, -60.0], dtype=dtype)
    case[4][:, 2] = 0
    actual = emulated_products.tree_attention(*case, sinks=sinks)
    assert (actual[0, 2] == 0).all()
    assert_close(actual, exact(*case, sinks=sinks), TOLERANCE[dtype] * 2, TOLERANCE[dtype] * 2)


@pytest.mark.parametrize("page_size", [1, 48])
def test_windows_on_pages(multiprocessors, dtype, page_size):
    case, extra = windowed((9, 3, 64, 24), [163, 256], 128, dtype)
    contiguous, paged = attention_cases(case, page_size, heads_last=True)
    actual, expected = (emulated_products.tree_attention(*part, **extra) for part in (paged, contiguous))
    assert_bitwise(actual, expected)
