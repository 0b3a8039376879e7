"""lm_head_topk: against float64, ties, rows without a distribution, and independence of batch and threads."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from draft_head import EPS, TOLERANCE, DraftHead

import eagle_kernels

NAMES = ["normed", "logprobs", "token_ids", "valid"]


def make_case(head: DraftHead, k: int, d2t: bool = False) -> list:
    weight = head.random(head.vocabulary, head.hidden)
    offsets = head.integers(0, 1000, head.vocabulary) if d2t else None
    return [head.hidden_states(), head.random(head.hidden).abs(), EPS, weight, k, offsets]


@pytest.mark.parametrize("vocabulary, k", [(300, 10), (5000, 64), (4097, 1), (65, 64), (1, 1), (64, 3)])
def test_matches_float64(device, dtype, vocabulary, k):
    case = make_case(DraftHead(dtype, device, vocabulary=vocabulary), k)
    normed, logprobs, token_ids, valid = eagle_kernels.lm_head_topk(*case)
    assert_bitwise(normed, eagle_kernels.rms_norm(case[0], case[1], EPS), "normed")
    exact = (normed.double() @ case[3].double().T).log_softmax(-1)
    assert_close(logprobs, exact.topk(k).values, 1e-6, 1e-4, "logprobs")
    assert_close(exact.gather(-1, token_ids.long()), logprobs, 1e-6, 1e-4, "log-probability of token_ids")
    assert valid.all() and logprobs.shape == token_ids.shape == (2, 5, k)


def test_d2t_is_added(backend, device):
    case = make_case(DraftHead(torch.float32, device), 10, d2t=True)
    draft_ids = eagle_kernels.lm_head_topk(*case[:5])[2]
    assert_bitwise(eagle_kernels.lm_head_topk(*case)[2], draft_ids + case[5][draft_ids.long()])


def test_matches_reference(backend, device, dtype):
    case = make_case(DraftHead(dtype, device), 10)
    actual, expected = eagle_kernels.lm_head_topk(*case), eagle_kernels.lm_head_topk(*case, backend="reference")
    tolerance = TOLERANCE[dtype]
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert a.dtype == e.dtype
        if name in ("normed", "logprobs"):
            assert_close(a, e, tolerance, 10 * tolerance, name)


def test_ties_go_to_the_lowest_token(backend, device):
    """Logits are small integers, exact in every precision: most are tied, within and across chunks."""
    levels = torch.randint(-3, 4, (5000,), device=device).float()
    weight = torch.zeros(5000, 4, device=device)
    weight[:, 0] = levels
    hidden = torch.tensor([[[1.0, 1, 1, 1], [-1, 1, 1, 1]]], device=device)
    case = [hidden, torch.ones(4, device=device), 0.0, weight, 50]
    _, logprobs, token_ids, _ = eagle_kernels.lm_head_topk(*case)
    for row, sign in enumerate([1, -1]):
        assert_bitwise(token_ids[0, row], (sign * levels).sort(descending=True, stable=True).indices[:50].int())
    _, expected, ids, _ = eagle_kernels.lm_head_topk(*case, backend="reference")
    assert_bitwise(token_ids, ids)
    assert_close(logprobs, expected, 1e-6, 1e-6)


@pytest.mark.parametrize("where", [0, 100, 2500])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_without_a_distribution(backend, device, where, value):
    case = make_case(DraftHead(torch.float32, device, vocabulary=2600, hidden=8), 4, d2t=True)
    case[3][:] = case[3].abs()
    case[0][:] = case[0].abs()
    case[0][1, 2] *= -1
    case[3][where, 0] = value
    actual = eagle_kernels.lm_head_topk(*case)
    expected = eagle_kernels.lm_head_topk(*case, backend="reference")
    assert_bitwise(actual[3], expected[3], "valid")
    assert_bitwise(actual[2], expected[2], "token_ids")
    assert_close(actual[1], expected[1], 1e-5, 1e-5, "logprobs")


def test_all_logits_minus_infinity(backend, device):
    case = make_case(DraftHead(torch.float32, device, hidden=8), 4)
    case[0][:] = case[0].abs()
    case[3][:] = -torch.inf
    _, logprobs, token_ids, valid = eagle_kernels.lm_head_topk(*case)
    assert not valid.any() and (logprobs == -torch.inf).all()
    assert_bitwise(token_ids, torch.arange(4, device=device).int().expand(2, 5, 4))


def test_rows_depend_neither_on_the_batch_nor_on_threads(dtype):
    case = make_case(DraftHead(dtype, batch=1, rows=24, vocabulary=9000), 10)
    whole = eagle_kernels.lm_head_topk(*case)
    for row in [0, 7, 23]:
        alone = eagle_kernels.lm_head_topk(case[0][:, row : row + 1], *case[1:])
        for name, a, w in zip(NAMES, alone, whole, strict=True):
            assert_bitwise(a, w[:, row : row + 1], f"{name} of row {row}")
    before = torch.get_num_threads()
    for threads in [1, 2, 3]:
        torch.set_num_threads(threads)
        for name, a, w in zip(NAMES, eagle_kernels.lm_head_topk(*case), whole, strict=True):
            assert_bitwise(a, w, f"{name} with {threads} threads")
    torch.set_num_threads(before)


def test_strided_hidden_states(device, dtype):
    case = make_case(DraftHead(dtype, device), 10)
    expected = eagle_kernels.lm_head_topk(*case)
    case[0] = strided(case[0])
    for name, a, e in zip(NAMES, eagle_kernels.lm_head_topk(*case), expected, strict=True):
        assert_bitwise(a, e, name)


def test_opcheck(device):
    case = make_case(DraftHead(torch.float32, device), 10, d2t=True)
    torch.library.opcheck(torch.ops.eagle_kernels.lm_head_topk.default, case)


def test_errors_name_op_and_tensor():
    case = make_case(DraftHead(torch.float32), 10)
    for k in [0, 65]:
        with pytest.raises(RuntimeError, match=rf"lm_head_topk: k is {k}, expected 1 <= k <= min\(V, 64\)"):
            eagle_kernels.lm_head_topk(*case[:4], k)
    with pytest.raises(RuntimeError, match=r"lm_head_topk: d2t must be \[V\] with V = 300, got \[299\]"):
        eagle_kernels.lm_head_topk(*case[:5], torch.zeros(299, dtype=torch.int32))
