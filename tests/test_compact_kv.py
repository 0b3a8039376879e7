"""compact_kv: every backend against the reference, on strided and odd-shaped caches."""

import pytest
import torch
from compare import assert_bitwise, strided

import eagle_kernels


def make_case(dtype: torch.dtype, device: str) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    caches = [torch.randn(3, heads, 40, dim).to(device, dtype) for heads, dim in [(2, 8), (3, 5), (1, 64)]]
    accept_index = torch.tensor([[0, 3, 7, 8], [0, -1, -1, -1], [0, 1, 2, 11]], dtype=torch.int32, device=device)
    accept_length = torch.tensor([3, 0, 2], dtype=torch.int32, device=device)
    context_len = torch.tensor([5, 28, 0], dtype=torch.int32, device=device)
    return caches, accept_index, accept_length, context_len


@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
def test_matches_reference(backend, device, dtype, view):
    caches, *path = make_case(dtype, device)
    actual, expected = [view(c) for c in caches], [c.clone() for c in caches]
    eagle_kernels.compact_kv(actual, *path)
    eagle_kernels.compact_kv(expected, *path, backend="reference")
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_bitwise(a, e, f"cache {i}")


def test_rows_outside_the_path_stay(backend, device):
    caches, *path = make_case(torch.float32, device)
    before = [c.clone() for c in caches]
    eagle_kernels.compact_kv(caches, *path)
    for cache, old in zip(caches, before, strict=True):
        assert_bitwise(cache[1], old[1])  # accept_length 0: only the root, already in place
        assert_bitwise(cache[0, :, :5], old[0, :, :5])
        assert_bitwise(cache[0, :, 9:], old[0, :, 9:])


def test_layers_at_uneven_distances_of_one_buffer(backend, device):
    """Some of its layers, which no single launch can step through; the one between them stays."""
    _, *path = make_case(torch.float32, device)
    buffer = torch.randn(4, 3, 2, 40, 8, device=device)
    expected = buffer.clone()
    for layers, chosen in ((buffer, None), (expected, "reference")):
        eagle_kernels.compact_kv([layers[i] for i in (0, 1, 3)], *path, backend=chosen)
    assert_bitwise(buffer, expected)


def test_caches_without_heads(backend, device):
    _, *path = make_case(torch.float32, device)
    eagle_kernels.compact_kv([torch.empty(3, 0, 40, 8, device=device)] * 2, *path)


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.compact_kv.default, make_case(torch.float32, device))


def test_errors_name_op_and_tensor():
    caches, accept_index, accept_length, context_len = make_case(torch.float32, "cpu")
    with pytest.raises(RuntimeError, match=r"compact_kv: accept_length must be \[B\] with B = 3, got \[2\]"):
        eagle_kernels.compact_kv(caches, accept_index, accept_length[:2], context_len)
    with pytest.raises(RuntimeError, match="compact_kv: accept_index must be int32"):
        eagle_kernels.compact_kv(caches, accept_index.long(), accept_length, context_len)
    with pytest.raises(RuntimeError, match=r"caches must be \[B, H, L, D\]"):
        eagle_kernels.compact_kv([caches[0][0]], accept_index, accept_length, context_len)
    with pytest.raises(ValueError, match="backend 'cudnn' is unknown"):
        eagle_kernels.compact_kv(caches, accept_index, accept_length, context_len, backend="cudnn")
