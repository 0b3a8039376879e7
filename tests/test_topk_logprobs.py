"""topk_logprobs: every backend against the reference: ties, invalid rows, strides, vocabulary maps."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided

import eagle_kernels


def check(logits: torch.Tensor, k: int, d2t: torch.Tensor | None = None) -> None:
    actual = eagle_kernels.topk_logprobs(logits, k, d2t)
    expected = eagle_kernels.topk_logprobs(logits, k, d2t, backend="reference")
    assert_close(actual[0], expected[0], rtol=1e-6, atol=1e-6, name="logprobs")
    assert_bitwise(actual[1], expected[1], "token_ids")
    assert_bitwise(actual[2], expected[2], "valid")


@pytest.mark.parametrize("vocabulary, k", [(1, 1), (7, 7), (64, 3), (100, 64), (1000, 10), (5003, 64)])
@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
def test_matches_reference(backend, device, dtype, vocabulary, k, view):
    check(view((4 * torch.randn(6, vocabulary)).to(device, dtype)), k)


@pytest.mark.parametrize("k", [1, 5, 64])
def test_ties_go_to_the_lowest_token(backend, device, dtype, k):
    check(torch.randint(-2, 3, (5, 2000)).to(device, dtype), k)
    check(torch.zeros(2, 300, device=device, dtype=dtype), k)


def test_vocabulary_map(backend, device):
    d2t = torch.randint(0, 100_000, (500,), dtype=torch.int32, device=device)
    logits = torch.randn(4, 500, device=device)
    logits[2] = torch.nan
    check(logits, 8, d2t)


def test_invalid_rows(backend, device, dtype):
    logits = torch.randn(5, 90).to(device, dtype)
    logits[0, 89] = torch.nan
    logits[1, 0] = torch.inf
    logits[2] = -torch.inf
    logits[3, 5:] = -torch.inf  # fewer finite logits than k
    logprobs, token_ids, valid = eagle_kernels.topk_logprobs(logits, 9)
    assert valid.tolist() == [False, False, False, True, True]
    assert (logprobs[:3] == -torch.inf).all()
    assert token_ids[:3].tolist() == [list(range(9))] * 3
    check(logits, 9)


def test_extreme_logits(backend, device):
    logits = torch.randn(3, 1000, device=device) * torch.tensor([[1e-6], [1e3], [1e30]], device=device)
    check(logits, 10)


def test_opcheck(device):
    op = torch.ops.eagle_kernels.topk_logprobs.default
    torch.library.opcheck(op, (torch.randn(3, 70, device=device), 4, None))
    torch.library.opcheck(op, (torch.randn(3, 70, device=device), 4, torch.ones(70, dtype=torch.int32, device=device)))


def test_errors_name_op_and_tensor():
    logits = torch.randn(3, 100)
    with pytest.raises(RuntimeError, match=r"topk_logprobs: k must be 1 to min\(vocabulary, 64\), got 65"):
        eagle_kernels.topk_logprobs(logits, 65)
    with pytest.raises(RuntimeError, match="topk_logprobs: d2t must be int32"):
        eagle_kernels.topk_logprobs(logits, 5, torch.zeros(100, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="topk_logprobs: the last dimension of logits must be contiguous"):
        eagle_kernels.topk_logprobs(logits.T, 3)
