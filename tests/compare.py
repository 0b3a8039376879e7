"""Assertions on tensors that print the worst coordinate."""

import torch
from torch import Tensor


def assert_bitwise(actual: Tensor, expected: Tensor, name: str = "output") -> None:
    """Shapes, dtypes and every bit agree (NaN equals NaN)."""
    assert actual.dtype == expected.dtype, f"{name}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    differs = (actual != expected) & ~(_isnan(actual) & _isnan(expected))
    if differs.any():
        where = tuple(differs.nonzero()[0].tolist())
        raise AssertionError(
            f"{name}: {int(differs.sum())} of {differs.numel()} differ, "
            f"first at {where}: {actual[where]} != {expected[where]}"
        )


def assert_close(actual: Tensor, expected: Tensor, rtol: float, atol: float, name: str = "output") -> None:
    """|actual - expected| <= atol + rtol * |expected| everywhere, NaN and infinities in the same places."""
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    actual, expected = actual.double(), expected.double()
    same = (actual == expected) | (_isnan(actual) & _isnan(expected))
    excess = torch.where(same, 0.0, (actual - expected).abs() - rtol * expected.abs()).nan_to_num(nan=torch.inf)
    if (excess > atol).any():
        where = tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))
        raise AssertionError(
            f"{name}: worst at {where}: {actual[where]:.6g}, expected {expected[where]:.6g}, "
            f"{int((excess > atol).sum())} of {excess.numel()} out of bounds (rtol {rtol}, atol {atol})"
        )


def _isnan(t: Tensor) -> Tensor:
    return torch.isnan(t) if t.is_floating_point() else torch.zeros_like(t, dtype=torch.bool)


def poisoned(shape: tuple[int, ...], dtype: torch.dtype, device: str = "cpu") -> Tensor:
    """A tensor full of NaN: whatever reads what it must not read, shows it."""
    return torch.full(shape, torch.nan, dtype=dtype, device=device)


def strided(t: Tensor) -> Tensor:
    """The same values as a view into a larger NaN-filled buffer: padded in every dimension but the last's stride."""
    buffer = torch.full([size + 3 for size in t.shape], torch.nan, dtype=t.dtype, device=t.device)
    view = buffer[tuple(slice(1, 1 + size) for size in t.shape)]
    view.copy_(t)
    return view
