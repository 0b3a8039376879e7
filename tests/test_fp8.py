"""fp8 weights in every op that takes them: every number, scales of all sizes, what is refused; and quantize_fp8."""

import pytest
import torch
from compare import assert_bitwise, assert_close, strided
from draft_head import TOLERANCE, DraftHead
from fp8_cases import CACHES, CALLS, random_fp8, results_of
from test_linear import ROUNDING

import eagle_kernels

INTEGERS = (torch.int32, torch.bool)


@pytest.fixture(params=CALLS)
def op(request):
    return request.param


@pytest.mark.parametrize("backend", [None, "triton", "reference"])
@pytest.mark.parametrize("inner", [77, 80])
def test_every_number_in_every_place_is_exact(device, dtype, inner, backend):
    """The identity times a weight is the weight: the largest numbers, subnormals and both zeros, to the bit."""
    numbers = torch.arange(256, dtype=torch.uint8)[torch.arange(256) % 128 != 127].view(torch.float8_e4m3fn)
    weight = torch.stack([numbers.view(torch.uint8).roll(k) for k in range(inner)], dim=1).view(torch.float8_e4m3fn)
    scale = torch.exp2(torch.arange(254) % 7 - 3).float()
    expected = (weight.float() * scale[:, None]).T.to(device, dtype)
    identity = torch.eye(inner).to(device, dtype)
    actual = eagle_kernels.linear(identity, weight.to(device), None, scale.to(device), backend=backend)
    assert_bitwise(actual, expected)


@pytest.mark.parametrize("backend", [None, "triton", "reference"])
@pytest.mark.parametrize("rows", [1, 6, 13, 61])
@pytest.mark.parametrize("inner, out", [(576, 192), (33, 7), (1, 1), (100, 67), (31, 130)])
def test_linear_matches_float64(device, dtype, rows, inner, out, backend):
    input = torch.randn(rows, inner).to(device, dtype)
    weight, scale = random_fp8(out, inner, device, 1 if dtype == torch.float16 else 60)
    bias = (torch.randn(out, device=device) * scale).to(dtype)
    sums, tolerance = input.double() @ weight.double().T, 5e-4 * inner**0.5
    actual = eagle_kernels.linear(input, weight, None, scale, backend=backend)
    assert actual.dtype == dtype
    assert_close(actual.double() / scale.double(), sums, ROUNDING[dtype], tolerance)
    actual = eagle_kernels.linear(input, weight, bias, scale, backend=backend)
    assert_close(actual.double() / scale.double(), sums + bias.double() / scale.double(), ROUNDING[dtype], tolerance)


SIZES = [{}, {"rows": 1, "hidden": 33, "intermediate": 7}, {"rows": 70, "hidden": 128}]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matches_reference(op, backend, device, dtype, sizes):
    call = CALLS[op](DraftHead(dtype, device, cache_length=75, **sizes))
    actual = results_of(op, getattr(eagle_kernels, op), *call)
    with eagle_kernels.use_backend("reference"):
        expected = results_of(op, getattr(eagle_kernels, op), *call)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.dtype == e.dtype
        if op == "lm_head_topk" and i == 1:  # the normed state, rounded, times a vocabulary of unit rows
            assert_close(a, e, TOLERANCE[dtype], 10 * TOLERANCE[dtype], "logprobs")
        elif a.dtype not in INTEGERS:
            assert_close(a, e, 2 * TOLERANCE[dtype], 2 * TOLERANCE[dtype], f"output {i}")


def test_strided_inputs(op, device, dtype):
    """NaN around every row of the inputs; weights are contiguous, with NaN before and behind."""
    arguments, scales = CALLS[op](DraftHead(dtype, device))
    views = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor) and argument.dtype == torch.float8_e4m3fn:
            around = torch.full((argument.numel() + 96,), 0x7F, dtype=torch.uint8, device=device)
            argument = around[48:-48].copy_(argument.view(torch.uint8).flatten()).view(argument.dtype).view_as(argument)
        elif isinstance(argument, torch.Tensor) and argument.dim() > 2 and argument.dtype == dtype:
            argument = strided(argument)
        views.append(argument)
    run = getattr(eagle_kernels, op)
    actual, expected = (results_of(op, run, case, scales) for case in (tuple(views), arguments))
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert_bitwise(a, e, f"output {i}")


def test_rows_do_not_depend_on_the_batch_or_on_threads(dtype):
    input = torch.randn(128, 577).to(dtype)
    weight, scale = random_fp8(133, 577, largest_exponent=1)
    whole = eagle_kernels.linear(input, weight, None, scale)
    for rows in [1, 2, 3, 4, 5, 6, 7, 8, 11, 24, 60]:
        part = eagle_kernels.linear(input[7 : 7 + rows], weight, None, scale)
        assert_bitwise(part, whole[7 : 7 + rows], f"{rows} rows")
    before = torch.get_num_threads()
    for threads in [1, 3]:
        torch.set_num_threads(threads)
        assert_bitwise(eagle_kernels.linear(input, weight, None, scale), whole, f"{threads} threads")
    torch.set_num_threads(before)


def test_no_rows_and_no_inner_dimension(backend, device, dtype):
    weight, scale = random_fp8(5, 8, device, 1)
    assert eagle_kernels.linear(torch.zeros(0, 8).to(device, dtype), weight, None, scale).shape == (0, 5)
    empty = torch.zeros(3, 0).to(device, dtype)
    assert_bitwise(eagle_kernels.linear(empty, weight[:, :0].contiguous(), None, scale), empty.new_zeros(3, 5))


def test_opcheck(op, device):
    """The schema's own test compares arguments, which torch cannot in fp8; test_<op>.py runs it with other weights."""
    arguments, scales = CALLS[op](DraftHead(torch.float32, device))
    for place in CACHES.get(op, ()):
        arguments[place].zero_()
    checks = ("test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.eagle_kernels, op).default, arguments, scales, test_utils=checks)


def test_errors_name_op_and_tensor(op):
    arguments, scales = CALLS[op](DraftHead(torch.float32))
    run = getattr(eagle_kernels, op)
    for name, scale in scales.items():
        others = {other: s for other, s in scales.items() if other != name}
        with pytest.raises(RuntimeError, match=rf"^{op}: \w+ is float8_e4m3fn and {name} is missing"):
            run(*arguments, **others)
        with pytest.raises(RuntimeError, match=rf"^{op}: {name} must be \[\w\] with .*, got \[{len(scale) - 1}\]"):
            run(*arguments, **others, **{name: scale[:-1]})
        with pytest.raises(RuntimeError, match=rf"^{op}: {name} must be float32"):
            run(*arguments, **others, **{name: scale.double()})
    wide = [a.float() if isinstance(a, torch.Tensor) and a.dtype == torch.float8_e4m3fn else a for a in arguments]
    with pytest.raises(RuntimeError, match=rf"^{op}: \w+_scale belongs to a float8_e4m3fn \w+; leave it out"):
        run(*wide, **scales)


def test_quantised_rows_reach_the_largest_number():
    weight = torch.randn(50, 83) * torch.exp2(torch.arange(50) * 4 - 100.0)[:, None]
    weight8, scale = eagle_kernels.quantize_fp8(weight)
    assert weight8.dtype == torch.float8_e4m3fn and weight8.is_contiguous() and scale.dtype == torch.float32
    assert (weight8.float().abs().amax(1) == 448).all()
    back = weight8.double() * scale.double()[:, None]
    step = weight.double().abs().clamp(min=weight.double().abs().amax(1, keepdim=True) * 2**-14) / 16
    assert ((back - weight.double()).abs() <= step * 1.0001).all()
    assert_bitwise(eagle_kernels.quantize_fp8(back.float())[0].float(), weight8.float())


def test_quantised_rows_of_zeros_and_of_denormal_numbers_are_finite():
    weight = torch.tensor([[0.0, -0.0], [1e-45, 0.0], [3e38, -1e37]])
    weight8, scale = eagle_kernels.quantize_fp8(weight)
    assert (scale > 0).all() and scale.isfinite().all()
    back = weight8.float() * scale[:, None]
    assert_close(back, weight, 1 / 16, 1e-40)
    assert eagle_kernels.quantize_fp8(torch.zeros(3, 0))[1].shape == (3,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_quantize_refuses_what_fp8_cannot_hold(value):
    weight = torch.ones(3, 4)
    weight[1, 2] = value
    with pytest.raises(ValueError, match="quantize_fp8: weight holds NaN or infinity"):
        eagle_kernels.quantize_fp8(weight)
    with pytest.raises(ValueError, match=r"quantize_fp8: weight must be \[O, K\], got \[4\]"):
        eagle_kernels.quantize_fp8(weight[0])
