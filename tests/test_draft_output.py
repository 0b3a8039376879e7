"""draft_output: against the reference, and rows that do not depend on their batch."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from draft_head import EPS, TOLERANCE, DraftHead

import eagle_kernels


def make_case(head: DraftHead) -> list:
    attention = head.random(head.batch, head.rows, head.heads * head.head_dim)
    o_weight = head.weight(head.hidden, head.heads * head.head_dim)
    return [attention, o_weight, head.hidden_states(), head.random(head.hidden), EPS]


@pytest.mark.parametrize("rows", [1, 5, 70])
def test_matches_reference(backend, device, dtype, rows):
    case = make_case(DraftHead(dtype, device, rows=rows))
    hidden, normed = eagle_kernels.draft_output(*case)
    expected_hidden, expected_normed = eagle_kernels.draft_output(*case, backend="reference")
    tolerance = TOLERANCE[dtype]
    assert hidden.dtype == normed.dtype == dtype
    assert_close(hidden, expected_hidden, tolerance, tolerance, "hidden")
    assert_close(normed, expected_normed, 2 * tolerance, 2 * tolerance, "normed")
    assert_bitwise(normed, eagle_kernels.rms_norm(hidden, case[3], EPS), "normed")


def test_strided_inputs(device, dtype):
    case = make_case(DraftHead(dtype, device))
    expected = eagle_kernels.draft_output(*case)
    case[0], case[2] = strided(case[0]), strided(case[2])
    for name, actual, same in zip(["hidden", "normed"], eagle_kernels.draft_output(*case), expected, strict=True):
        assert_bitwise(actual, same, name)


def test_rows_do_not_depend_on_the_batch(dtype):
    case = make_case(DraftHead(dtype, batch=1, rows=24))
    hidden, normed = eagle_kernels.draft_output(*case)
    for row in [0, 7, 23]:
        alone = [case[0][:, row : row + 1], case[1], case[2][:, row : row + 1], *case[3:]]
        for actual, whole in zip(eagle_kernels.draft_output(*alone), [hidden, normed], strict=True):
            assert_bitwise(actual, whole[:, row : row + 1], f"row {row}")


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.draft_output.default, make_case(DraftHead(torch.float32, device)))


def test_errors_name_op_and_tensor():
    case = make_case(DraftHead(torch.float32))
    with pytest.raises(
        RuntimeError, match=r"draft_output: residual must be \[B, Q, H\] with .*H = 72, got \[2, 4, 72\]"
    ):
        eagle_kernels.draft_output(*case[:2], case[2][:, :4], *case[3:])
    with pytest.raises(RuntimeError, match="draft_output: o_weight must have the dtype of attention"):
        eagle_kernels.draft_output(case[0], case[1].half(), *case[2:])
