"""Every small tree, mode and filter: the kernels equal the reference token for token on the same random bits."""

import pytest
import torch
from compare import assert_bitwise
from sampled_rounds import make_requests, make_round
from small_cases import FILTERS, all_trees
from torch import Tensor

import eagle_kernels

MODES = ["sampled", "hybrid", "deterministic", "traversal", "walk"]
NAMES = ("accept_index", "accept_length", "bonus_token", "draft_tokens")


def play(
    mode: str, parents: list[int], target: Tensor, draft: Tensor, requests: dict[str, Tensor], backend: str | None
) -> tuple[Tensor, ...]:
    """Draws the tree's children and verifies them, all by one backend."""
    counts = [parents.count(node) for node in range(len(parents))]
    fixed = {"hybrid": [max(count - 1, 0) for count in counts], "deterministic": counts}.get(mode)
    round = make_round(parents, target, draft, requests, num_fixed=fixed, backend=backend)
    tokens, parent = round["draft_tokens"], round["parent"]
    if mode == "walk":
        depth = [0] * len(parents)
        for node, above in enumerate(parents[1:], 1):
            depth[node] = depth[above] + 1
        position_ids = round["context_len"][:, None] + torch.tensor(depth, device=tokens.device).int() + 1
        choices = eagle_kernels.sample_tokens(target, position_ids, **requests, backend=backend)
        return *eagle_kernels.verify_tree(tokens, parent, choices, backend=backend), tokens
    return *eagle_kernels.verify_rejection(**round, traversal=mode == "traversal", backend=backend), tokens


def check_all_trees(mode: str, vocabulary: int, max_nodes: int, device: str) -> None:
    """One request per filter for every tree; Triton on GPUs only, its interpreter is too slow for so many rounds."""
    filters = dict(zip(("temperature", "top_k", "top_p", "min_p"), zip(*FILTERS.values(), strict=True), strict=True))
    batch, accepted = len(FILTERS), 0
    for index, parents in enumerate(all_trees(max_nodes, max_depth=3)):
        seed = batch * index + torch.arange(batch)
        requests = make_requests(batch, device, seed=seed, **{name: torch.tensor(p) for name, p in filters.items()})
        target, draft = (1.5 * torch.randn(batch, len(parents), vocabulary, device=device) for _ in range(2))
        expected = play(mode, parents, target, draft, requests, "reference")
        for backend in (None,) if device == "cpu" else (None, "triton"):
            actual = play(mode, parents, target, draft, requests, backend)
            for name, a, e in zip(NAMES, actual, expected, strict=True):
                assert_bitwise(a, e, f"tree {parents}, {name}")
        accepted += int(expected[1].sum())
    assert accepted > 0


@pytest.mark.parametrize("mode", MODES)
def test_small_trees(mode, device):
    check_all_trees(mode, 3, 4, device)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [3, 4, 5, 6])
@pytest.mark.parametrize("mode", MODES)
def test_every_tree(mode, vocabulary, device):
    check_all_trees(mode, vocabulary, 7, device)
