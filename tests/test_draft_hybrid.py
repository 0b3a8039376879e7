"""Hybrids: two trees merged and cut to one budget, by hand and by brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import eagle_decoder, prompts, tiny_target
from test_draft_prompt_lookup import paths

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import load_draft
from eagle_decoding.drafts.hybrid import HybridDraft
from eagle_decoding.drafts.trie import Trie, best, graft, to_draft_tree
from eagle_decoding.tree import DraftTree

ROOT = torch.tensor([7], dtype=torch.int32)
CONTEXT = torch.tensor([3], dtype=torch.int32)


def tree_of(*path_lists: list[tuple[int, float]]) -> DraftTree:
    """One request's tree from paths of (token, probability of the path)."""
    trie = Trie(7, 64)
    for path in path_lists:
        trie.add_path([(token, math.log(p)) for token, p in path])
    return to_draft_tree([trie], CONTEXT)


class Fixed:
    feature_layers = ()

    def __init__(self, tree: DraftTree):
        self.drafted = tree

    def propose(self, root_tokens, context_len) -> DraftTree:
        return self.drafted


def test_branches_are_grafted_and_the_best_stay():
    eagle = tree_of([(1, 0.6), (2, 0.3)], [(5, 0.2)])
    suffix = tree_of([(1, 0.9), (9, 0.8), (4, 0.1)])
    merged = HybridDraft(Fixed(eagle), Fixed(suffix), num_nodes=4).propose(ROOT, CONTEXT)
    assert merged.draft_tokens.tolist() == [[7, 1, 2, 9]]
    assert merged.parent.tolist() == [[-1, 0, 1, 1]]
    assert merged.node_scores.exp().tolist() == [pytest.approx([1, 0.9, 0.3, 0.8])]
    assert merged.position_ids.tolist() == [[3, 4, 5, 5]]


scored_paths = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.1, 1)), min_size=1, max_size=4), min_size=1, max_size=5
)


@settings(max_examples=100, deadline=None)
@given(scored_paths, st.integers(1, 10))
def test_the_best_nodes_are_a_tree(lists, num_nodes):
    trie = Trie(7, 64)
    for path in lists:
        probability, falling = 1.0, []
        for token, p in path:
            probability *= p
            falling.append((token, math.log(probability)))
        trie.add_path(falling)
    kept = best(trie, num_nodes)
    assert len(kept) == min(num_nodes, len(trie))
    assert all(parent < node for node, parent in enumerate(kept.parent))
    everything = paths(trie)
    assert set(paths(kept)) <= set(everything)
    left_out = [everything[path] for path in everything if path not in paths(kept)]
    assert not left_out or max(left_out) <= min([1.0, *paths(kept).values()]) + 1e-3


def test_what_cannot_be_is_left_out():
    """A static tree keeps nodes that the request's filters forbid: they are worth no row."""
    trie = Trie(7, 9)
    trie.add_path([(1, -math.inf)])
    trie.add_path([(2, -1.0), (3, -math.inf)])
    assert best(trie, 9).tokens == [7, 2]


def test_both_methods_begin_anew_and_get_the_features_that_one_needs():
    first, second = load_draft("prompt-lookup", tiny_target()), load_draft("suffix", tiny_target())
    second.feature_layers = (1, 3)
    both = HybridDraft(first, second, 8)
    assert both.feature_layers == (1, 3)
    for text in ([[1, 2, 1]], [[3, 4, 3]]):
        both.start(torch.tensor(text), torch.tensor([3], dtype=torch.int32), None)
        assert first.history.tokens == second.history.tokens == text


def test_trees_without_scores_are_refused():
    lookahead = load_draft("lookahead", tiny_target())
    lookahead.start(torch.tensor([[3, 4, 5]]), torch.tensor([3], dtype=torch.int32), None)
    with pytest.raises(ValueError, match="no scores to rank nodes by"):
        graft(lookahead.propose(ROOT, CONTEXT), [Trie(7, 99)])


def test_it_accepts_what_either_would():
    """Greedy text of a random model loops: the head knows nothing of it, the suffix branches do."""
    target = tiny_target()
    inputs, greedy = prompts(3), {"do_sample": False, "max_new_tokens": 60, "eos_token_id": None}
    head = eagle_decoder(target, TreeConfig(num_nodes=8, max_depth=3, topk=3)).draft
    alone = SpeculativeDecoder(target, head)
    expected = alone.generate(**inputs, **greedy)
    both = SpeculativeDecoder(target, HybridDraft(head, load_draft("suffix", target), 8))
    assert torch.equal(both.generate(**inputs, **greedy), expected)
    assert both.stats.accepted > alone.stats.accepted
