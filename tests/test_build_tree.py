"""build_tree: every backend against the reference, and the properties of a tree on any history, malformed ones too."""

import pytest
import torch
from compare import assert_bitwise
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import ancestor_bits, grown_history

import eagle_kernels
from eagle_kernels.reference.ancestor_mask import pack

NAMES = ["draft_tokens", "parent", "depth", "position_ids", "ancestor_mask", "node_slots"]
WILD = [float("nan"), float("inf"), float("-inf"), 3.0, 0.0, -0.0, -1.0, -1.5, -2.0, -2.5]


def make_history(batch: int, branching: int, depth: int, device: str = "cpu") -> list[torch.Tensor]:
    """A grown history and context lengths."""
    context_len = torch.arange(batch, dtype=torch.int32) * 1000
    return [t.to(device) for t in (*grown_history(batch, branching, depth), context_len)]


def check(history: list[torch.Tensor], num_nodes: int) -> dict[str, torch.Tensor]:
    actual = eagle_kernels.build_tree(*history, num_nodes)
    expected = eagle_kernels.build_tree(*history, num_nodes, backend="reference")
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert_bitwise(a, e, name)
    return dict(zip(NAMES, actual, strict=True))


def check_structure(tree: dict[str, torch.Tensor], history: list[torch.Tensor]) -> None:
    """Parents come first, words follow from parents, padding is marked, nodes are slots of the history."""
    scores, tokens, parents, context_len = history
    for b in range(scores.shape[0]):
        parent, slots = tree["parent"][b].tolist(), tree["node_slots"][b].tolist()
        kept = sum(slot >= 0 for slot in slots)
        assert parent[0] == -1 and slots[0] == 0
        assert slots[:kept] == sorted(set(slots[:kept])) and slots[kept:] == [-1] * (len(slots) - kept)
        assert all(0 <= parent[i] < i for i in range(1, kept)) and parent[kept:] == [-1] * (len(slots) - kept)
        assert all(int(parents[b, slots[i]]) == slots[parent[i]] for i in range(1, kept))
        assert_bitwise(tree["ancestor_mask"][b].cpu(), pack(ancestor_bits(parent)), f"ancestor_mask of request {b}")
        depth = [int(ancestor_bits(parent)[i].sum()) - 1 for i in range(len(parent))]
        assert tree["depth"][b].tolist() == depth
        assert tree["position_ids"][b].tolist() == [int(context_len[b]) + d for d in depth]
        assert tree["draft_tokens"][b].tolist() == [int(tokens[b, max(slot, 0)]) for slot in slots]


@pytest.mark.parametrize("num_nodes", [1, 2, 24, 60, 64, 65, 128])
def test_matches_reference(backend, device, num_nodes):
    history = make_history(3, 8, 5, device)
    check_structure(check(history, num_nodes), history)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 128), st.integers(0, 2**31))
def test_keeps_the_best_nodes(branching, depth, num_nodes, seed):
    """With log-probabilities the kept nodes are the N - 1 highest scores; none dropped outranks one kept."""
    torch.manual_seed(seed)
    history = make_history(1, branching, depth)
    scores = history[0][0]
    tree = check(history, min(num_nodes, len(scores)))
    check_structure(tree, history)
    kept = tree["node_slots"][0].long()
    assert (kept >= 0).all()
    assert_bitwise(scores[kept].sort().values, scores.topk(len(kept)).values.sort().values)


@st.composite
def malformed_histories(draw) -> tuple[list[torch.Tensor], int]:
    slots = draw(st.integers(1, 40))
    scores = draw(st.lists(st.sampled_from(WILD), min_size=slots, max_size=slots))
    anywhere = st.one_of(st.integers(-2, slots + 2), st.sampled_from([-(2**31), 2**31 - 1]))
    parents = draw(st.lists(anywhere, min_size=slots, max_size=slots))
    history = [
        torch.tensor([scores]),
        torch.arange(slots, dtype=torch.int32)[None],
        torch.tensor([parents], dtype=torch.int32),
        torch.tensor([17], dtype=torch.int32),
    ]
    return history, draw(st.integers(1, slots))


@settings(max_examples=300, deadline=None)
@given(malformed_histories())
def test_survives_malformed_histories(case):
    """Cycles, forward and out-of-range parents, NaN: the result is still a tree, and the same on every backend."""
    history, num_nodes = case
    check_structure(check(history, num_nodes), history)


@settings(max_examples=25, deadline=None)
@given(malformed_histories())
def test_triton_survives_malformed_histories(case):
    with eagle_kernels.use_backend("triton"):
        check(*case)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(1, 9)), st.integers(1, 9), st.integers(1, 3))
def test_ties_go_to_the_lowest_slot(order, num_nodes, distinct):
    """Children of the root, scores with ties: whatever their order, the winners are by score, then by slot."""
    scores = torch.tensor([[0.0, *(-float(rank % distinct) - 1 for rank in order)]])
    parents = torch.tensor([[-1] + [0] * 8], dtype=torch.int32)
    history = [scores, torch.arange(9, dtype=torch.int32)[None], parents, torch.zeros(1, dtype=torch.int32)]
    tree = check(history, num_nodes)
    best = sorted(range(1, 9), key=lambda slot: (-scores[0, slot].item(), slot))[: num_nodes - 1]
    assert tree["node_slots"][0].tolist() == [0, *sorted(best)]


def test_a_child_above_its_parent_is_dropped(backend, device):
    """Scores that rise along a path (no log-probabilities) still give a closed tree."""
    scores = torch.tensor([[0.0, -3.0, 2.0, -1.0]], device=device)
    parents = torch.tensor([[-1, 0, 1, 0]], dtype=torch.int32, device=device)
    history = [scores, torch.arange(4, dtype=torch.int32, device=device)[None], parents, parents[:, 1].contiguous()]
    assert check(history, 4)["node_slots"].tolist() == [[0, 1, 3, -1]]


def test_opcheck(device):
    torch.library.opcheck(torch.ops.eagle_kernels.build_tree.default, (*make_history(2, 3, 3, device), 9))


def test_errors_name_op_and_tensor():
    scores, tokens, parents, context_len = make_history(1, 3, 2)
    for num_nodes in (0, 14):
        with pytest.raises(RuntimeError, match=f"build_tree: num_nodes must be between 1 and 13 .* got {num_nodes}"):
            eagle_kernels.build_tree(scores, tokens, parents, context_len, num_nodes)
    with pytest.raises(
        RuntimeError, match=r"build_tree: node_tokens must be \[B, M\] with B = 1, M = 13, got \[1, 12\]"
    ):
        eagle_kernels.build_tree(scores, tokens[:, 1:].contiguous(), parents, context_len, 4)
    with pytest.raises(RuntimeError, match="build_tree: node_scores must be float32"):
        eagle_kernels.build_tree(scores.double(), tokens, parents, context_len, 4)
