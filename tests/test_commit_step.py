"""commit_step: every backend against the reference, strided and poisoned hidden states."""

import pytest
import torch
from compare import assert_bitwise, strided

import eagle_kernels

NAMES = ["next_tokens", "next_hidden", "next_positions", "next_context_len"]


def make_case(dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    draft_tokens = torch.arange(4 * 9, dtype=torch.int32).reshape(4, 9) * 1000
    accept_index = torch.tensor([[0, 2, 5, 8], [0, -1, -1, -1], [0, 1, 3, -1], [0, 8, -1, -1]], dtype=torch.int32)
    accept_length = torch.tensor([3, 0, 2, 1], dtype=torch.int32)
    bonus_token = torch.tensor([11, 12, 13, 14], dtype=torch.int32)
    hidden_states = torch.randn(4, 9, 37).to(dtype)
    unaccepted = torch.ones(4, 9, dtype=torch.bool)
    for b, path in enumerate(accept_index.tolist()):
        unaccepted[b, [node for node in path if node >= 0]] = False
    hidden_states[unaccepted] = torch.nan
    context_len = torch.tensor([0, 5, 1000, 7], dtype=torch.int32)
    case = [draft_tokens, accept_index, accept_length, bonus_token, hidden_states, context_len]
    return [t.to(device) for t in case]


@pytest.mark.parametrize("view", [torch.clone, strided], ids=["contiguous", "strided"])
def test_matches_reference(backend, device, dtype, view):
    case = make_case(dtype, device)
    case[4] = view(case[4])
    actual = eagle_kernels.commit_step(*case)
    expected = eagle_kernels.commit_step(*case, backend="reference")
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert_bitwise(a, e, name)
    assert not actual[1].isnan().any()


def test_by_hand(backend, device):
    case = make_case(torch.float32, device)
    next_tokens, next_hidden, next_positions, next_context_len = eagle_kernels.commit_step(*case)
    assert next_tokens.tolist() == [[2000, 5000, 8000, 11], [12, 0, 0, 0], [19000, 21000, 13, 0], [35000, 14, 0, 0]]
    assert next_positions.tolist() == [[0, 1, 2, 3], [5, 5, 5, 5], [1000, 1001, 1002, 1002], [7, 8, 8, 8]]
    assert next_context_len.tolist() == [4, 6, 1003, 9]
    assert_bitwise(next_hidden[0], case[4][0, [0, 2, 5, 8]])
    assert (next_hidden[1, 1:] == 0).all()


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.commit_step.default, make_case(torch.float32, device))


def test_errors_name_op_and_tensor():
    case = make_case(torch.float32, "cpu")
    with pytest.raises(RuntimeError, match=r"commit_step: accept_length must be \[B\] with B = 4, .*got \[3\]"):
        eagle_kernels.commit_step(case[0], case[1], case[2][:3], *case[3:])
    with pytest.raises(RuntimeError, match="commit_step: accept_length holds 4, expected 0 <= index < 4"):
        eagle_kernels.commit_step(case[0], case[1], case[2] + 1, *case[3:])
    with pytest.raises(RuntimeError, match="commit_step: accept_index holds -1 on an accepted path"):
        eagle_kernels.commit_step(case[0], case[1], case[2].clamp(min=1), *case[3:])
    with pytest.raises(RuntimeError, match="commit_step: the last dimension of hidden_states must be contiguous"):
        eagle_kernels.commit_step(*case[:4], case[4].mT.contiguous().mT, case[5])
