"""Lookahead: the window's shape, the n-grams it collects, and how it follows the text."""

import pytest
import torch
from models import prompts, tiny_target

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import Commit
from eagle_decoding.drafts.lookahead import LookaheadDraft, Window
from eagle_decoding.drafts.trie import Trie

TREE = TreeConfig(num_nodes=13, max_depth=2, topk=3)  # trigrams


def window() -> Window:
    made = Window(TREE, [50, 51])
    made.levels = [[1, 2, 3], [11, 12, 13]]
    return made


def test_the_window_is_a_tree():
    """Level 0 is the chain 1 2 3; under each hangs its column. Positions are 1 + column + level."""
    made, trie = window(), Trie(9, TREE.num_nodes)
    made.grow(trie)
    assert trie.tokens == [9, 1, 11, 2, 12, 3, 13]
    assert trie.parent == [-1, 0, 1, 1, 3, 3, 5]
    assert trie.depth == [0, 1, 2, 2, 3, 3, 4]
    assert made.nodes == [2, 4, 6]


def test_guesses_come_latest_first_and_share_nodes_with_the_window():
    made, trie = window(), Trie(9, 9)
    for rest in [(4, 5), (1, 6), (1, 11), (7, 8)]:
        made.remember(9, rest)
    assert list(made.pool[9]) == [(1, 6), (1, 11), (7, 8)]  # three at most, the oldest went
    made.grow(trie)
    assert trie.tokens[7:] == [7, 8]
    roomy = Trie(9, 12)
    made.grow(roomy)
    assert roomy.tokens[7:] == [7, 8, 6] and roomy.parent[7:] == [0, 7, 1]


def test_columns_become_ngrams_and_the_window_moves_on():
    made, trie = window(), Trie(9, TREE.num_nodes)
    made.grow(trie)
    choices = [0, 0, 21, 0, 22, 0, 23]
    made.advance(choices, emitted=1)
    assert {first: list(rest) for first, rest in made.pool.items()} == {1: [(11, 21)], 2: [(12, 22)], 3: [(13, 23)]}
    assert made.levels == [[11, 12, 13], [21, 22, 23]]
    made.grow(Trie(9, TREE.num_nodes))
    made.advance([0, 0, 31, 0, -1, 0, 33], emitted=3)  # nothing was chosen after the middle column
    assert made.levels[0][:1] == [23] and made.levels[1][:1] == [33]
    assert set(made.levels[0][1:] + made.levels[1][1:]) <= {50, 51}
    assert list(made.pool) == [1, 2, 3, 11, 13]


def test_a_guess_that_comes_again_is_the_latest():
    made = window()
    for rest in [(4, 5), (1, 6), (4, 5)]:
        made.remember(9, rest)
    assert list(made.pool[9]) == [(1, 6), (4, 5)]


def test_a_path_longer_than_the_window_leaves_it_as_wide():
    """A whole window and one level more can be accepted: four drafts and a token."""
    made = window()
    made.grow(Trie(9, TREE.num_nodes))
    made.advance([20] * 7, emitted=5)
    assert [len(level) for level in made.levels] == [3, 3]
    assert {token for level in made.levels for token in level} <= {50, 51}


def test_new_guesses_come_from_the_whole_text():
    draft, one = LookaheadDraft(TREE), torch.ones(1, dtype=torch.int32)
    draft.start(torch.tensor([[5, 6]]), 2 * one, None)
    draft.extend(Commit(torch.tensor([[6, 7]]), None, None, 0 * one, 2 * one, 2))
    draft.extend(Commit(torch.tensor([[8, 0]]), None, None, 2 * one, one, 4))
    assert draft.requests[0].text == [5, 6, 7, 8]


def test_a_window_needs_room():
    with pytest.raises(ValueError, match="more than 8 nodes, got 8"):
        LookaheadDraft(TreeConfig(num_nodes=8, max_depth=2, topk=3))


def test_loops_fill_the_pool():
    """Greedy text of a random model falls into loops: the pool soon holds them, and rounds emit several tokens."""
    target = tiny_target()
    inputs, settings = prompts(3), {"do_sample": False, "max_new_tokens": 60, "eos_token_id": None}
    decoder = SpeculativeDecoder.from_pretrained(target, "lookahead")
    assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))
    assert decoder.stats.accepted > 10
