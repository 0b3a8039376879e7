"""expand_tree: every backend against the reference, level by level, and what must hold of any level."""

import pytest
import torch
from compare import assert_bitwise, poisoned
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import empty_history

import eagle_kernels

NAMES = ["next_scores", "next_slots", "next_tokens", "next_origin", "next_mask"]


def make_level(batch: int, frontier: int, branching: int, words: int, device: str = "cpu") -> list[torch.Tensor]:
    scores = -torch.rand(batch, frontier).sort(dim=1).values
    slots = torch.randint(0, 1000, (batch, frontier), dtype=torch.int32)
    mask = torch.randint(-(2**62), 2**62, (batch, frontier, words))
    logprobs = -torch.rand(batch, frontier, branching)
    token_ids = torch.randint(0, 2**31 - 1, (batch, frontier, branching), dtype=torch.int32)
    history = 5 + frontier * branching + 3
    node_scores = poisoned((batch, history), torch.float32)
    node_tokens = torch.full((batch, history), 7, dtype=torch.int32)
    tensors = [scores, slots, mask, logprobs, token_ids, node_scores, node_tokens, node_tokens.clone()]
    return [t.to(device) for t in tensors]


def check_level(level: list[torch.Tensor], slot_offset: int, row_offset: int) -> tuple[torch.Tensor, ...]:
    """Runs the default backend and the reference on copies and compares all that they return or write."""
    actual, expected = [t.clone() for t in level], [t.clone() for t in level]
    outputs = eagle_kernels.expand_tree(*actual, slot_offset, row_offset)
    wanted = eagle_kernels.expand_tree(*expected, slot_offset, row_offset, backend="reference")
    for name, a, e in zip(NAMES, outputs, wanted, strict=True):
        assert_bitwise(a, e, name)
    for name, a, e in zip(["scores", "tokens", "parents"], actual[5:], expected[5:], strict=True):
        assert_bitwise(a, e, f"node_{name}")
    return outputs


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 10, 1), (2, 7, 3, 2), (9, 10, 10, 1), (1, 64, 64, 2)])
def test_matches_reference(backend, device, shape):
    check_level(make_level(*shape, device=device), slot_offset=5, row_offset=0)
    check_level(make_level(*shape, device=device), slot_offset=8, row_offset=64 * shape[3] - shape[2])


def test_ties_go_to_the_lowest_slot_and_nan_comes_last(backend, device):
    level = make_level(2, 4, 4, 1, device)
    level[0].fill_(-1)
    level[3].fill_(-1)
    level[3][0, 1, 2] = torch.nan
    level[3][1] = torch.nan
    level[3][1, 3, 1] = -5
    next_scores, next_slots, *_ = check_level(level, slot_offset=5, row_offset=0)
    assert next_slots.tolist() == [[5, 6, 7, 8], [5 + 13, 5, 6, 7]]
    assert next_scores[1].tolist() == [-6, -torch.inf, -torch.inf, -torch.inf]


def test_a_grown_tree_is_consistent(backend, device):
    """Bits of each frontier node are exactly the rows of its path, whatever was selected."""
    branching, depth = 4, 5
    history = [t.to(device) for t in empty_history(2, 1 + branching + (depth - 1) * branching**2)]
    scores, slots = torch.zeros(2, 1, device=device), torch.zeros(2, 1, dtype=torch.int32, device=device)
    mask = torch.zeros(2, 1, 1, dtype=torch.int64, device=device)
    slot_offset, paths = 1, [[[]], [[]]]
    for level in range(depth):
        logprobs = -torch.rand(*scores.shape, branching, device=device)
        tokens = torch.randint(0, 99, logprobs.shape, dtype=torch.int32, device=device)
        width = scores.shape[1] * branching
        scores, slots, _, origin, mask = eagle_kernels.expand_tree(
            scores, slots, mask, logprobs, tokens, *history, slot_offset, level * branching
        )
        slot_offset += width
        for b in range(2):
            paths[b] = [[*paths[b][o], level * branching + i] for i, o in enumerate(origin[b].tolist())]
            assert mask[b, :, 0].tolist() == [sum(1 << row for row in path) for path in paths[b]]
        assert_bitwise(history[0].gather(1, slots.long()), scores)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 2), st.integers(0, 2**31))
def test_any_level(batch, frontier, branching, words, seed):
    torch.manual_seed(seed)
    level = make_level(batch, frontier, branching, words)
    level[3] = (level[3] * 4).round() / 4  # many ties
    level[0] = (level[0] * 2).round() / 2
    next_scores, next_slots, _, next_origin, _ = check_level(level, slot_offset=5, row_offset=3)
    assert (next_scores.diff(dim=1) <= 0).all()
    assert_bitwise(next_origin, ((next_slots - 5) // branching).int())
    assert all(len(set(row)) == branching for row in next_slots.tolist())


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.expand_tree.default, (*make_level(2, 3, 4, 1, device), 5, 0))


def test_errors_name_op_and_tensor():
    level = make_level(2, 3, 4, 1)
    with pytest.raises(RuntimeError, match=r"expand_tree: slots 9\.\.20 do not fit into a history of 20"):
        eagle_kernels.expand_tree(*level, 9, 0)
    with pytest.raises(RuntimeError, match=r"expand_tree: rows 61\.\.64 do not fit into 1 mask words"):
        eagle_kernels.expand_tree(*level, 5, 61)
    with pytest.raises(RuntimeError, match=r"expand_tree: frontier_slots must be \[B, F\] with B = 2, F = 3"):
        eagle_kernels.expand_tree(level[0], level[1][:, :2], *level[2:], 5, 0)
