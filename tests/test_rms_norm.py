"""rms_norm: against the reference and transformers' module."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import eagle_kernels

ONE_ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def make_case(rows: int, size: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    return torch.randn(rows, size).to(device, dtype) * 3, torch.randn(size).to(device, dtype), 1e-5


@pytest.mark.parametrize("rows, size", [(1, 576), (60, 576), (3, 1), (2, 33), (5, 100)])
def test_matches_reference(backend, device, dtype, rows, size):
    case = make_case(rows, size, dtype, device)
    actual, expected = eagle_kernels.rms_norm(*case), eagle_kernels.rms_norm(*case, backend="reference")
    assert actual.dtype == dtype
    assert_close(actual, expected, ONE_ROUNDING[dtype], 0)


def test_matches_transformers(dtype):
    input, weight, eps = make_case(24, 576, dtype, "cpu")
    module = LlamaRMSNorm(576, eps).to(dtype)
    module.weight.data.copy_(weight)
    actual, expected = eagle_kernels.rms_norm(input, weight, eps), module(input).detach()
    assert_close(actual, expected, ONE_ROUNDING[dtype], 0)
    if dtype != torch.float32:  # sums in another order seldom round differently
        assert (actual != expected).float().mean() < 0.01


def test_rounds_before_the_weight(device):
    input = torch.tensor([[1.0, 1.01, 0.99]], device=device, dtype=torch.bfloat16)
    weight = torch.full((3,), 1.0078125, device=device, dtype=torch.bfloat16)
    expected = (input.float() * input.float().pow(2).mean().rsqrt()).bfloat16() * weight
    assert_bitwise(eagle_kernels.rms_norm(input, weight, 0.0), expected)


def test_rows_do_not_depend_on_the_batch(dtype):
    input, weight, eps = make_case(200, 577, dtype, "cpu")
    whole = eagle_kernels.rms_norm(input, weight, eps)
    for row in [0, 1, 99, 199]:
        assert_bitwise(eagle_kernels.rms_norm(input[row], weight, eps), whole[row], f"row {row}")


def test_strided_rows_read_nothing_else(backend, device, dtype):
    input, weight, eps = make_case(24, 45, dtype, device)
    dense = input.view(2, 3, 4, 45)
    expected = eagle_kernels.rms_norm(dense, weight, eps)
    assert_bitwise(eagle_kernels.rms_norm(strided(dense), weight, eps), expected)  # NaN around every row
    assert_bitwise(eagle_kernels.rms_norm(dense.transpose(0, 2), weight, eps), expected.transpose(0, 2))


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.rms_norm.default, make_case(3, 40, torch.float32, device))


def test_errors_name_op_and_tensor(device):
    input, weight, eps = make_case(3, 40, torch.float32, device)
    with pytest.raises(RuntimeError, match=r"rms_norm: weight must be \[H\] with H = 40, got \[39\]"):
        eagle_kernels.rms_norm(input, weight[:39], eps)
    with pytest.raises(RuntimeError, match="rms_norm: weight must have the dtype of input"):
        eagle_kernels.rms_norm(input.half(), weight, eps)
    with pytest.raises(RuntimeError, match="rms_norm: the last dimension of input must be contiguous"):
        eagle_kernels.rms_norm(input.T.contiguous().T, weight, eps)
