"""verify_tree: every backend against the reference, on random, padded and malformed trees."""

import pytest
import torch
from compare import assert_bitwise
from hypothesis import given, settings
from hypothesis import strategies as st

import eagle_kernels

NAMES = ("accept_index", "accept_length", "bonus_token")


def tensor(rows: list[list[int]], device: str = "cpu") -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32, device=device)


def check(args: tuple[torch.Tensor, ...], max_depth: int | None) -> tuple[torch.Tensor, ...]:
    actual = eagle_kernels.verify_tree(*args, max_depth)
    expected = eagle_kernels.verify_tree(*args, max_depth, backend="reference")
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert_bitwise(a, e, name)
    return actual


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[list[list[int]]], int | None]:
    """Trees over few tokens, so that matches are common; padding, duplicates among siblings, wild parents."""
    batch, nodes = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    token = st.integers(0, 3)
    parents = [
        [-1]
        + [draw(st.one_of(st.integers(0, n - 1), st.sampled_from([-1, -7, n, 2**31 - 1]))) for n in range(1, nodes)]
        for _ in range(batch)
    ]
    tokens = [[draw(token) for _ in range(nodes)] for _ in range(batch)]
    target = [[draw(st.one_of(token, st.just(-1))) for _ in range(nodes)] for _ in range(batch)]
    return [tokens, parents, target], draw(st.one_of(st.none(), st.integers(0, 30)))


@settings(max_examples=150, deadline=None)
@given(trees())
def test_matches_reference(case):
    rows, max_depth = case
    check(tuple(tensor(r) for r in rows), max_depth)


@settings(max_examples=25, deadline=None)
@given(trees())
def test_triton_matches_reference(case):
    rows, max_depth = case
    with eagle_kernels.use_backend("triton"):
        check(tuple(tensor(r) for r in rows), max_depth)


def test_walk(backend, device):
    """Takes the matching branch, skips padding and a deeper match on another branch, ends with the bonus token."""
    draft = tensor([[9, 4, 5, 6, 6, 7, 6]], device)
    parent = tensor([[-1, 0, 0, 1, 2, 4, -1]], device)
    target = tensor([[5, 6, 6, 1, 7, 8, 3]], device)
    accept_index, accept_length, bonus_token = check((draft, parent, target), None)
    assert accept_index.tolist() == [[0, 2, 4, 5, -1, -1, -1]]
    assert accept_length.tolist() == [3]
    assert bonus_token.tolist() == [8]
    assert check((draft, parent, target), 1)[2].tolist() == [6]


def test_lowest_child_wins_and_invalid_row_ends_the_walk(backend, device):
    draft, parent = tensor([[0, 5, 5, 5]], device), tensor([[-1, 0, 0, 1]], device)
    accept_index, accept_length, bonus_token = check((draft, parent, tensor([[5, -1, 5, 5]], device)), None)
    assert accept_index.tolist() == [[0, 1, -1, -1]]
    assert (accept_length.item(), bonus_token.item()) == (1, -1)


def test_opcheck(device):
    args = tuple(torch.randint(0, 3, (2, 6), dtype=torch.int32, device=device) for _ in range(3))
    torch.library.opcheck(torch.ops.eagle_kernels.verify_tree.default, (*args, 4))


def test_errors_name_op_and_tensor():
    rows = torch.zeros(2, 6, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"verify_tree: parent must be \[B, N\] with B = 2, N = 6, got \[2, 5\]"):
        eagle_kernels.verify_tree(rows, rows[:, :5], rows)
    with pytest.raises(RuntimeError, match="verify_tree: target_tokens must be int32"):
        eagle_kernels.verify_tree(rows, rows, rows.long())
    with pytest.raises(RuntimeError, match="verify_tree: max_depth must not be negative, got -1"):
        eagle_kernels.verify_tree(rows, rows, rows, -1)
