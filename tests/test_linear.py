"""linear: against float64, and each row bitwise the same whatever the batch and the threads."""

import pytest
import torch
from compare import assert_bitwise, assert_close, poisoned, strided

import eagle_kernels

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def make_case(rows: int, inner: int, outputs: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    shapes = [(rows, inner), (outputs, inner), (outputs,)]
    return [torch.randn(shape).to(device, dtype) for shape in shapes]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", [None, "triton", "reference"])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 13, 24, 61, 131])
@pytest.mark.parametrize("inner, outputs", [(576, 192), (33, 7), (1, 1), (100, 67), (31, 130)])
def test_matches_float64(device, dtype, rows, inner, outputs, backend):
    input, weight, bias = make_case(rows, inner, outputs, dtype, device)
    expected = input.double() @ weight.double().T
    size = inner**0.5
    assert_close(eagle_kernels.linear(input, weight, backend=backend), expected, ROUNDING[dtype], 2e-6 * size)
    actual = eagle_kernels.linear(input, weight, bias, backend=backend)
    assert_close(actual, expected + bias.double(), ROUNDING[dtype], 2e-6 * size)
    assert actual.dtype == dtype and actual.is_contiguous()


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("rows", [1, 10, 60])
def test_long_products(device, dtype, rows, fp8):
    """So few outputs of so many products that a GPU splits the sums among blocks."""
    input, weight, _ = make_case(rows, 4096, 384, dtype, device)
    scale = None
    if fp8:
        weight, scale = eagle_kernels.quantize_fp8(weight)
    served = weight.double() if scale is None else weight.double() * scale.double()[:, None]
    actual = eagle_kernels.linear(input, weight, weight_scale=scale)
    assert_close(actual, input.double() @ served.T, ROUNDING[dtype], 5e-6 * 64)  # of sums in four lanes


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("inner, outputs", [(576, 1536), (45, 133), (3107, 133)])
def test_rows_do_not_depend_on_the_batch(dtype, inner, outputs, fp8, threads):
    """On the CPU few rows times long ones go piece by piece, and 128 in one go; fp8 weights of many are converted."""
    input, weight, bias = make_case(128, inner, outputs, dtype, "cpu")
    scale = None
    if fp8:
        weight, scale = eagle_kernels.quantize_fp8(weight)
    whole = eagle_kernels.linear(input, weight, bias, scale)
    for rows in [1, 2, 3, 4, 5, 6, 7, 8, 11, 24, 33, 60, 127]:
        for first in [0, 128 - rows]:
            part = eagle_kernels.linear(input[first : first + rows], weight, bias, scale)
            assert_bitwise(part, whole[first : first + rows], f"rows {first} to {first + rows}")
    reordered = torch.randperm(128)
    assert_bitwise(eagle_kernels.linear(input[reordered], weight, bias, scale), whole[reordered])


def test_rows_do_not_depend_on_threads(dtype):
    input, weight, bias = make_case(24, 576, 1536, dtype, "cpu")
    outputs = []
    before = torch.get_num_threads()
    for threads in [1, 2, 3]:
        torch.set_num_threads(threads)
        outputs.append(eagle_kernels.linear(input, weight, bias))
    torch.set_num_threads(before)
    assert_bitwise(outputs[1], outputs[0], "two threads")
    assert_bitwise(outputs[2], outputs[0], "three threads")


def test_strided_rows_read_nothing_else(backend, device, dtype):
    input, weight, bias = make_case(2 * 3 * 4, 45, 19, dtype, device)
    dense = input.view(2, 3, 4, 45)
    expected = eagle_kernels.linear(dense, weight, bias)
    assert_bitwise(eagle_kernels.linear(strided(dense), weight, bias), expected)  # NaN around every row
    transposed = eagle_kernels.linear(dense.transpose(0, 2), weight, bias)
    if (backend, device) == ("triton", "cpu"):  # interpreted: the bits of numpy's products depend on a row's place
        assert_close(transposed, expected.transpose(0, 2), rtol=torch.finfo(dtype).eps, atol=1e-5)
    else:
        assert_bitwise(transposed, expected.transpose(0, 2))
    surrounded = poisoned((21 * 45,), dtype, device)
    surrounded[45 : 20 * 45] = weight.flatten()
    assert_bitwise(eagle_kernels.linear(dense, surrounded[45 : 20 * 45].view(19, 45), bias), expected)


def test_float16_of_every_kind(device):
    """float16 numbers of every kind keep their value: all of them times one."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16, device=device).view(torch.float16).unsqueeze(1)
    weight = torch.zeros(1, 1, dtype=torch.float16, device=device)
    weight[0, 0] = 1
    assert_bitwise(eagle_kernels.linear(numbers, weight), numbers + 0.0)
    assert_bitwise(eagle_kernels.linear(weight, numbers), (numbers + 0.0).T)


def test_no_rows_and_no_inner_dimension(backend, device, dtype):
    input, weight, bias = make_case(3, 8, 5, dtype, device)
    assert eagle_kernels.linear(input[:0], weight, bias).shape == (0, 5)
    assert_bitwise(eagle_kernels.linear(input[:, :0], weight[:, :0].contiguous(), bias), bias.expand(3, 5))
    assert_bitwise(eagle_kernels.linear(input[0], weight, bias), eagle_kernels.linear(input, weight, bias)[0])


def test_opcheck(device):
    case = make_case(3, 40, 9, torch.float32, device)
    torch.library.opcheck(torch.ops.eagle_kernels.linear.default, case)
    torch.library.opcheck(torch.ops.eagle_kernels.linear.default, case[:2])


def test_errors_name_op_and_tensor(device):
    input, weight, bias = make_case(3, 40, 9, torch.float32, device)
    with pytest.raises(RuntimeError, match=r"linear: weight must be \[O, K\] with O = 9, K = 40, got \[9, 39\]"):
        eagle_kernels.linear(input, weight[:, :39].contiguous(), bias)
    with pytest.raises(RuntimeError, match=r"linear: bias must be \[O\] with O = 9, got \[8\]"):
        eagle_kernels.linear(input, weight, bias[:8])
    with pytest.raises(RuntimeError, match="linear: weight must have the dtype of input"):
        eagle_kernels.linear(input, weight.half(), bias)
    with pytest.raises(RuntimeError, match="linear: weight must be contiguous"):
        eagle_kernels.linear(input, weight.T.contiguous().T, bias)
    with pytest.raises(RuntimeError, match="linear: the last dimension of input must be contiguous"):
        eagle_kernels.linear(input.T.contiguous().T, weight, bias)
