"""Static trees: shape and tokens against their rank paths, and the best tree against all trees."""

from itertools import combinations, product
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_decoding import TreeConfig
from eagle_decoding.config import MAX_NODES
from eagle_decoding.drafts.static_tree import (
    MEDUSA_PATHS,
    StaticTree,
    best_paths,
    first_paths,
)


@st.composite
def rank_trees(draw, max_nodes=70, max_rank=4):
    """Random sets of rank paths that contain every path's parent."""
    paths = {()}
    for _ in range(draw(st.integers(1, max_nodes))):
        parent = draw(st.sampled_from(sorted(paths)))
        paths.add((*parent, draw(st.integers(0, max_rank))))
    return sorted(paths - {()}, key=lambda path: draw(st.randoms(use_true_random=False)).random())


def bit(words, j):
    return bool(words[j // 64] >> (j % 64) & 1)


@given(rank_trees())
@settings(max_examples=60, deadline=None)
def test_shape_and_tokens_of_random_trees(paths):
    """Every node's token is the candidate its path names; masks and depths say the same as the paths."""
    tree = StaticTree(paths)
    nodes = [(), *tree.paths]
    assert set(nodes) == {(), *map(tuple, paths)} and tree.num_nodes == len(nodes)
    batch, root, context_len = 2, torch.tensor([7, 8], dtype=torch.int32), torch.tensor([3, 50], dtype=torch.int32)
    seen = []

    def candidates(depth, level, tokens):
        """The token of a path is its number among all paths of base 5, plus 1000 in the second request."""
        parents = [nodes[i] for i in level.parents.tolist()]
        assert all(len(parent) == depth for parent in parents)
        walks = [[nodes[i] for i in walk] for walk in level.paths.tolist()]
        assert walks == [[parent[:d] for d in range(depth + 1)] for parent in parents]
        seen.extend(parents)
        ids = [[[1000 * b + number((*p, r)) for r in range(level.topk)] for p in parents] for b in range(batch)]
        scores = [[[-0.5 * r - 0.25 * b for r in range(level.topk)] for _ in parents] for b in range(batch)]
        return torch.tensor(scores), torch.tensor(ids, dtype=torch.int32)

    def number(path):
        return sum((rank + 1) * 5**place for place, rank in enumerate(path)) % 900

    filled = tree.fill(root, context_len, candidates)
    assert filled.max_depth == max(map(len, nodes)) and filled.draft_tokens.dtype == torch.int32
    for b in range(batch):
        for n, path in enumerate(nodes):
            expected = int(root[b]) if n == 0 else 1000 * b + number(path)
            assert int(filled.draft_tokens[b, n]) == expected
            parent = int(filled.parent[b, n])
            assert (parent == -1) if n == 0 else (nodes[parent] == path[:-1] and parent < n)
            assert int(filled.depth[b, n]) == len(path)
            assert int(filled.position_ids[b, n]) == int(context_len[b]) + len(path)
            assert float(filled.node_scores[b, n]) == pytest.approx(-sum(0.5 * r + 0.25 * b for r in path))
            words = [word % 2**64 for word in filled.ancestor_mask[b, n].tolist()]
            for m, other in enumerate(nodes):
                assert bit(words, m) == (path[: len(other)] == other)
            assert not any(bit(words, m) for m in range(len(nodes), 64 * len(words)))
    assert sorted(seen) == sorted({path[:-1] for path in tree.paths})


@pytest.mark.parametrize(
    "paths, reason",
    [
        ([], "got 0"),
        ([()], "got 0"),
        ([(0, 1)], r"\(0, 1\) of a static tree lacks its parent \(0,\)"),
        ([(0,), (0, -1)], "negative rank"),
        ([(rank,) for rank in range(MAX_NODES)], f"got {MAX_NODES}"),
    ],
)
def test_what_is_no_tree(paths, reason):
    with pytest.raises(ValueError, match=reason):
        StaticTree(paths)


def test_the_largest_tree_fills_two_words():
    tree = StaticTree([(rank,) for rank in range(63)] + [(0, rank) for rank in range(64)])
    assert tree.num_nodes == MAX_NODES and tree.ancestor_mask.shape == (MAX_NODES, 2)
    assert tree.ancestor_mask[63].tolist() == [1 - 2**63, 0] and tree.ancestor_mask[127].tolist() == [3, -(2**63)]


@pytest.mark.parametrize("num_nodes", [2, 9, 26, 64])
def test_every_beginning_of_the_published_tree_is_a_tree(num_nodes):
    assert len(MEDUSA_PATHS) == len(set(MEDUSA_PATHS)) == 63
    tree = StaticTree(first_paths(MEDUSA_PATHS, TreeConfig(num_nodes, 4, 10)))
    assert tree.num_nodes == num_nodes
    assert StaticTree(first_paths(MEDUSA_PATHS, TreeConfig(5, 2, 2))).paths == [(0,), (1,), (0, 0), (0, 1)]


def value(paths, accuracy):
    """Expected accepted length: the sum over nodes of the product of accuracies on the path."""
    total = 0.0
    for path in paths:
        total += prod(accuracy[depth][rank] for depth, rank in enumerate(path))
    return total


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 1.0]), min_size=2, max_size=2), min_size=2, max_size=3)
)
@settings(max_examples=40, deadline=None)
def test_the_best_tree_is_best_among_all_trees(accuracy):
    """All trees of five nodes, by force."""
    paths = best_paths(accuracy, TreeConfig(5, 4, 3))
    everything = [path for depth in range(1, len(accuracy) + 1) for path in product(range(2), repeat=depth)]
    best = max(
        value(chosen, accuracy)
        for chosen in combinations(everything, 4)
        if all(path[:-1] in {(), *chosen} for path in chosen)
    )
    assert value(paths, accuracy) == pytest.approx(best)
    assert len(StaticTree(paths).paths) == len(paths) <= 4
    assert len(paths) == 4 or value(everything, accuracy) == pytest.approx(best)


@given(st.integers(2, 128), st.integers(1, 6), st.integers(1, 10), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_best_tree_keeps_its_limits(num_nodes, max_depth, topk, seed):
    generator = torch.Generator().manual_seed(seed)
    accuracy = torch.rand(5, 8, generator=generator).tolist()
    try:
        tree = TreeConfig(num_nodes, max_depth, topk)
    except ValueError:
        return
    paths = best_paths(accuracy, tree)
    assert StaticTree(paths).num_nodes <= num_nodes
    assert all(len(path) <= min(max_depth, 5) and max(path) < min(topk, 8) for path in paths)


def test_nodes_that_were_never_right_are_left_out():
    assert best_paths([[0.5, 0.0], [0.2, 0.0]], TreeConfig(7, 2, 2)) == [(0,), (0, 0)]
    assert best_paths([[0.0, 0.0]], TreeConfig(7, 2, 2)) == [(0,)]
