"""draft_input: against the reference and rms_norm."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from draft_head import EPS, TOLERANCE, DraftHead

import eagle_kernels


def make_case(head: DraftHead) -> list:
    token_ids = head.integers(0, head.vocabulary, head.batch, head.rows)
    norms = [head.random(head.hidden), head.random(head.hidden)]
    return [token_ids, head.hidden_states(), head.random(head.vocabulary, head.hidden), *norms, EPS]


def test_matches_reference(backend, device, dtype):
    case = make_case(DraftHead(dtype, device))
    actual, expected = eagle_kernels.draft_input(*case), eagle_kernels.draft_input(*case, backend="reference")
    assert actual.dtype == dtype
    assert_close(actual, expected, TOLERANCE[dtype], 0)


def test_halves_are_norms(device, dtype):
    token_ids, hidden_states, embed_weight, embed_norm, hidden_norm, eps = make_case(DraftHead(dtype, device))
    x = eagle_kernels.draft_input(token_ids, hidden_states, embed_weight, embed_norm, hidden_norm, eps)
    embedding, hidden = x.chunk(2, dim=-1)
    assert_bitwise(embedding, eagle_kernels.rms_norm(embed_weight[token_ids.long()], embed_norm, eps))
    assert_bitwise(hidden, eagle_kernels.rms_norm(hidden_states, hidden_norm, eps))


def test_strided_hidden_states(backend, device, dtype):
    case = make_case(DraftHead(dtype, device))
    expected = eagle_kernels.draft_input(*case)
    case[1] = strided(case[1])
    assert_bitwise(eagle_kernels.draft_input(*case), expected)


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.draft_input.default, make_case(DraftHead(torch.float32, device)))


def test_errors_name_op_and_tensor():
    head = DraftHead(torch.float32)
    case = make_case(head)
    with pytest.raises(
        RuntimeError, match=r"draft_input: embed_weight must be \[V, H\] with .*H = 72, got \[300, 71\]"
    ):
        eagle_kernels.draft_input(*case[:2], case[2][:, :71].contiguous(), *case[3:])
    case[0][1, 2] = 300
    with pytest.raises(RuntimeError, match="draft_input: token_ids holds 300, expected 0 <= index < 300"):
        eagle_kernels.draft_input(*case)
