"""Prompt lookup: the tree that it must propose, worked out by hand, and what it does in a batch."""

import pytest
import torch
from models import prompts, tiny_target
from trees import ancestor_bits

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import Commit
from eagle_decoding.drafts.prompt_lookup import NgramIndex
from eagle_decoding.drafts.text import History
from eagle_decoding.drafts.trie import Trie, to_draft_tree
from eagle_kernels.reference.ancestor_mask import pack


def grown(text: list[int], tree: TreeConfig) -> Trie:
    index = NgramIndex(tree)
    for token in text:
        index.append(token)
    return index.grow(text[-1])


def paths(trie: Trie) -> dict[tuple[int, ...], float]:
    """Path of tokens below the root -> its weight."""
    path = [()]
    for node in range(1, len(trie)):
        path.append((*path[trie.parent[node]], trie.tokens[node]))
    return {p: round(torch.tensor(s).exp().item(), 4) for p, s in zip(path[1:], trie.scores[1:], strict=True)}


def test_the_longest_match_comes_first():
    """1 2 3 was followed by 7 8, and 2 3 alone by 4 5: three tokens matched weigh 3/5 and 3/6, two 2/4 and 2/5."""
    text = [1, 2, 3, 7, 8, 9, 2, 3, 4, 5, 1, 2, 3]
    tree = TreeConfig(num_nodes=5, max_depth=2, topk=2)
    assert paths(grown(text, tree)) == {(7,): 0.6, (7, 8): 0.5, (4,): 0.5, (4, 5): 0.4}
    assert list(paths(grown(text, TreeConfig(num_nodes=4, max_depth=2, topk=2)))) == [(7,), (7, 8), (4,)]
    assert list(paths(grown(text, TreeConfig(num_nodes=3, max_depth=2, topk=1)))) == [(7,), (7, 8)]


def test_of_equal_matches_the_latest_comes_first():
    text = [5, 1, 5, 2, 5, 3, 5]
    assert list(paths(grown(text, TreeConfig(num_nodes=4, max_depth=1, topk=3)))) == [(3,), (2,), (1,)]
    assert list(paths(grown(text, TreeConfig(num_nodes=3, max_depth=1, topk=3)))) == [(3,), (2,)]


def test_matches_share_their_beginning():
    """Both occurrences of 1 2 go on with 3; then 4 or 5: one node for the 3."""
    text = [1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 8, 1, 2]
    trie = grown(text, TreeConfig(num_nodes=6, max_depth=2, topk=3))
    assert list(paths(trie)) == [(3,), (3, 5), (3, 4)]
    assert trie.parent == [-1, 0, 1, 1]


def test_a_match_overlaps_the_end_of_the_text():
    assert list(paths(grown([6, 6, 6], TreeConfig(num_nodes=4, max_depth=3, topk=2)))) == [(6,), (6, 6)]


@pytest.mark.parametrize("text", [[1], [1, 2, 3]])
def test_nothing_to_find(text):
    trie = grown(text, TreeConfig(num_nodes=4, max_depth=3, topk=2))
    assert (trie.tokens, trie.parent) == ([text[-1]], [-1])


def test_requests_are_padded_to_the_largest_tree():
    first, second = Trie(5, 70), Trie(6, 70)
    first.add_path([(token, -0.1 * token) for token in range(1, 70)])
    second.add_path([(9, -1.0)])
    tree = to_draft_tree([first, second], torch.tensor([10, 20], dtype=torch.int32))
    assert tree.num_nodes == 70 and tree.max_depth == 69
    assert to_draft_tree([second, first], tree.position_ids[:, 0]).max_depth == 69
    assert tree.parent[0].tolist() == list(range(-1, 69))
    assert tree.parent[1].tolist() == [-1, 0] + [-1] * 68
    assert tree.draft_tokens[1].tolist() == [6, 9] + [6] * 68
    assert tree.position_ids[:, 1].tolist() == [11, 21]
    expected = torch.stack([ancestor_bits(parents) for parents in tree.parent.tolist()])
    assert torch.equal(tree.ancestor_mask, pack(expected))
    assert tree.node_scores[1, 2:].eq(-torch.inf).all()


def test_a_looping_text_is_drafted():
    """Greedy text of a random model falls into loops, which are found in the output itself."""
    target = tiny_target()
    inputs = prompts(3)
    decoder = SpeculativeDecoder.from_pretrained(target, "prompt-lookup")
    settings = {"do_sample": False, "max_new_tokens": 80, "eos_token_id": None}
    assert torch.equal(decoder.generate(**inputs, **settings), target.generate(**inputs, **settings))
    assert decoder.stats.accepted > 10


def test_the_history_is_the_text():
    """The prompt's commit repeats the prompt one token further; later ones bring accepted drafts and a bonus token."""
    history = History(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2]))
    tokens, zeros = torch.tensor([[6, 7, 1], [9, 2, 0]]), torch.zeros(2, dtype=torch.int32)
    assert history.extend(Commit(tokens, None, None, zeros, torch.tensor([3, 2]), 3)) == [[1], [2]]
    tokens = torch.tensor([[3, 4], [3, 0]])
    assert history.extend(Commit(tokens, None, None, torch.tensor([3, 2]), torch.tensor([2, 1]), 5)) == [[3, 4], [3]]
    assert history.tokens == [[5, 6, 7, 1, 3, 4], [8, 9, 2, 3]]
