"""silu_mul: against float64 and torch's rounding."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided

import eagle_kernels

TWO_ROUNDINGS = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.mark.parametrize("size", [1, 15, 16, 33, 1536])
def test_matches_reference(backend, device, dtype, size):
    gate, up = (4 * torch.randn(2, 7, size, device=device)).to(dtype), torch.randn(2, 7, size, device=device).to(dtype)
    actual, expected = eagle_kernels.silu_mul(gate, up), eagle_kernels.silu_mul(gate, up, backend="reference")
    assert actual.dtype == dtype
    assert_close(actual, expected, TWO_ROUNDINGS[dtype], 1e-7)
    assert_close(strided_call(gate, up), actual, 0, 0)


def strided_call(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    joined = strided(torch.cat([gate, up], dim=-1))  # as a fused projection leaves them, NaN around every row
    return eagle_kernels.silu_mul(*joined.chunk(2, dim=-1))


def test_whole_range_of_the_exponential(backend, device):
    gate = torch.tensor([0.0, -0.0, 1e-30, 80, 100, 1e38, torch.inf, -80, -87.5, -100, -1e4, torch.nan], device=device)
    actual = eagle_kernels.silu_mul(gate, torch.ones_like(gate))
    assert_close(actual, torch.nn.functional.silu(gate.double()), 1e-6, 1e-30)


def test_rounds_between_the_steps(device):
    gate, up = torch.randn(64, 64, device=device).bfloat16(), torch.randn(64, 64, device=device).bfloat16()
    expected = torch.nn.functional.silu(gate.double()).bfloat16() * up
    assert (eagle_kernels.silu_mul(gate, up) != expected).float().mean() < 0.001


def test_rows_do_not_depend_on_the_batch(dtype):
    gate, up = torch.randn(100, 77).to(dtype), torch.randn(100, 77).to(dtype)
    whole = eagle_kernels.silu_mul(gate, up)
    assert_bitwise(eagle_kernels.silu_mul(gate[37], up[37]), whole[37])


def test_opcheck(device):
    case = torch.randn(3, 40, device=device), torch.randn(3, 40, device=device)
    torch.library.opcheck(torch.ops.eagle_kernels.silu_mul.default, case)


def test_errors_name_op_and_tensor(device):
    gate = torch.randn(3, 40, device=device)
    with pytest.raises(RuntimeError, match=r"silu_mul: up must have the shape of gate, \[3, 40\], got \[2, 40\]"):
        eagle_kernels.silu_mul(gate, gate[:2])
    with pytest.raises(RuntimeError, match="silu_mul: up must have the dtype of gate"):
        eagle_kernels.silu_mul(gate, gate.half())
