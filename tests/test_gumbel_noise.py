"""gumbel_noise: known answers of Philox, every backend against float64, distribution and independence of streams."""

import pytest
import torch
from compare import assert_bitwise, assert_close

import eagle_kernels
from eagle_kernels.reference.philox import exponential, gumbel, philox4x32

WORD = 0xFFFFFFFF


@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """The vectors that Salmon et al. publish with Random123."""
    words = philox4x32(tuple(torch.tensor(c) for c in counter), tuple(torch.tensor(k) for k in key))
    assert tuple(int(w) for w in words) == expected


def make_case(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    seed = torch.tensor([0, -1, 2**63 - 1, -(2**63), 12345], device=device)
    position_ids = torch.tensor([[0, 1, 2**31 - 1]], dtype=torch.int32, device=device).repeat(5, 1)
    return seed, position_ids


@pytest.mark.parametrize("num_tokens", [0, 1, 63, 64, 4099])
@pytest.mark.parametrize("stream", range(5))
def test_matches_reference(backend, device, num_tokens, stream):
    seed, position_ids = make_case(device)
    actual = eagle_kernels.gumbel_noise(seed, position_ids, num_tokens, stream)
    expected = eagle_kernels.gumbel_noise(seed, position_ids, num_tokens, stream, backend="reference")
    assert_close(actual, expected, rtol=3e-7, atol=3e-7)


def test_triton_has_the_bits_of_cpp(device):
    """The same float32 operations in the same order: not one bit differs."""
    seed, position_ids = make_case("cpu")
    expected = eagle_kernels.gumbel_noise(seed, position_ids, 5000, 2, backend="cpp")
    actual = eagle_kernels.gumbel_noise(seed.to(device), position_ids.to(device), 5000, 2, backend="triton")
    assert_bitwise(actual.cpu(), expected)


def test_extreme_bits_stay_finite():
    bits = torch.tensor([0, 1, 2**31 - 1, 2**31, WORD - 1, WORD])
    assert (exponential(bits) > 0).all()
    assert gumbel(bits).isfinite().all()
    assert gumbel(bits).diff().gt(0).all()


def test_distribution_and_independence(device):
    seed, position_ids = torch.tensor([3], device=device), torch.tensor([[8, 9]], dtype=torch.int32, device=device)
    draws = [eagle_kernels.gumbel_noise(seed, position_ids, 100_000, s).double().cpu().flatten() for s in range(5)]
    uniform = (-(-torch.stack(draws)).exp()).exp()
    counts = torch.stack([torch.histc(u, 100, 0, 1) for u in uniform])
    statistic = ((counts - 2000) ** 2 / 2000).sum(-1)
    assert (statistic < 160).all(), f"chi-square {statistic.tolist()} with 99 degrees of freedom"
    correlation = torch.corrcoef(torch.cat([uniform[:, :100_000], uniform[:, 100_000:]])).fill_diagonal_(0)
    assert correlation.abs().max() < 0.02, "streams and positions must not correlate"


def test_same_on_every_call(backend, device):
    seed, position_ids = make_case(device)
    whole = eagle_kernels.gumbel_noise(seed, position_ids, 1000)
    assert_bitwise(eagle_kernels.gumbel_noise(seed[2:3], position_ids[2:3], 500), whole[2:3, :, :500].contiguous())


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.gumbel_noise.default, (*make_case(device), 70, 1))


def test_errors_name_op_and_tensor():
    seed, position_ids = make_case("cpu")
    with pytest.raises(RuntimeError, match="gumbel_noise: stream must be 0 to 4, got 5"):
        eagle_kernels.gumbel_noise(seed, position_ids, 10, 5)
    with pytest.raises(RuntimeError, match=r"gumbel_noise: position_ids must be \[B, N\] with B = 4"):
        eagle_kernels.gumbel_noise(seed[:4], position_ids, 10, 0)
