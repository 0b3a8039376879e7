"""draft_mlp: against the reference, and rows that do not depend on their batch."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from draft_head import TOLERANCE, DraftHead

import eagle_kernels


def make_case(head: DraftHead) -> list[torch.Tensor]:
    gate_up = head.weight(2 * head.intermediate, head.hidden)
    return [head.hidden_states(), gate_up, head.weight(head.hidden, head.intermediate), head.hidden_states()]


@pytest.mark.parametrize("rows", [1, 5, 70])
@pytest.mark.parametrize("intermediate", [102, 1, 64])
def test_matches_reference(backend, device, dtype, rows, intermediate):
    case = make_case(DraftHead(dtype, device, rows=rows, intermediate=intermediate))
    actual, expected = eagle_kernels.draft_mlp(*case), eagle_kernels.draft_mlp(*case, backend="reference")
    assert actual.dtype == dtype
    assert_close(actual, expected, TOLERANCE[dtype], TOLERANCE[dtype])


def test_strided_inputs(device, dtype):
    normed, gate_up, down, residual = make_case(DraftHead(dtype, device))
    expected = eagle_kernels.draft_mlp(normed, gate_up, down, residual)
    assert_bitwise(eagle_kernels.draft_mlp(strided(normed), gate_up, down, strided(residual)), expected)


def test_rows_do_not_depend_on_the_batch(dtype):
    normed, gate_up, down, residual = make_case(DraftHead(dtype, batch=1, rows=24))
    whole = eagle_kernels.draft_mlp(normed, gate_up, down, residual)
    for row in [0, 7, 23]:
        at = slice(row, row + 1)
        alone = eagle_kernels.draft_mlp(normed[:, at], gate_up, down, residual[:, at])
        assert_bitwise(alone, whole[:, at], f"row {row}")


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.draft_mlp.default, make_case(DraftHead(torch.float32, device)))


def test_errors_name_op_and_tensor():
    normed, gate_up, down, residual = make_case(DraftHead(torch.float32))
    with pytest.raises(RuntimeError, match="draft_mlp: gate_up_weight has 203 rows but down_weight has I = 102"):
        eagle_kernels.draft_mlp(normed, gate_up[:203], down, residual)
    with pytest.raises(RuntimeError, match=r"draft_mlp: down_weight must be \[H, I\] with H = 72"):
        eagle_kernels.draft_mlp(normed, gate_up, down[:71], residual)
