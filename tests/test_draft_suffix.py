"""The suffix automaton against brute force, and the trees that grow from it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_draft_prompt_lookup import paths

from eagle_decoding import TreeConfig
from eagle_decoding.drafts.suffix import LEAST_PROBABILITY, SuffixIndex
from eagle_decoding.drafts.suffix_automaton import SuffixAutomaton

texts = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def automaton_of(text: list[int]) -> SuffixAutomaton:
    automaton = SuffixAutomaton()
    for token in text:
        automaton.append(token)
    return automaton


def occurrences(text: list[int], part: tuple[int, ...]) -> int:
    return sum(tuple(text[i : i + len(part)]) == part for i in range(len(text) - len(part) + 1))


def read(automaton: SuffixAutomaton, part: tuple[int, ...]) -> int | None:
    state: int | None = 0
    for token in part:
        state = automaton.next[state].get(token) if state is not None else None
    return state


@settings(max_examples=150, deadline=None)
@given(texts)
def test_counts_are_those_of_every_substring(text):
    automaton = automaton_of(text)
    parts = {tuple(text[i:j]) for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    for part in parts:
        assert automaton.count[read(automaton, part)] == occurrences(text, part)
    for part in [(*part, token) for part in parts for token in range(4)]:
        assert (read(automaton, part) is not None) == (part in parts)
    assert len(automaton.link) <= max(2 * len(text), 2)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_the_longest_repeated_suffix(text):
    automaton = automaton_of(text)
    suffixes = [tuple(text[i:]) for i in range(1, len(text))]
    expected = next((len(suffix) for suffix in suffixes if occurrences(text, suffix) > 1), 0)
    assert automaton.length[automaton.repeated] == expected


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(2, 12), st.integers(1, 5), st.integers(2, 4))
def test_a_tree_continues_the_text_within_its_bounds(text, num_nodes, max_depth, topk):
    tree = TreeConfig(num_nodes, max_depth, topk) if num_nodes <= 1 + topk + (max_depth - 1) * topk**2 else TreeConfig()
    index = SuffixIndex(tree)
    for token in text:
        index.append(token)
    trie = index.grow(text[-1])
    assert len(trie) <= tree.num_nodes and max(trie.depth) <= tree.max_depth
    assert trie.scores == sorted(trie.scores, reverse=True)
    for path, probability in paths(trie).items():
        assert occurrences(text, (text[-1], *path)) > 0 or len(path) > 1
        assert LEAST_PROBABILITY - 1e-3 <= probability <= 1
    for node in range(len(trie)):
        below = [trie.tokens[child] for child in range(len(trie)) if trie.parent[child] == node]
        assert len(below) == len(set(below)) <= tree.topk


def continued(text: list[int], context: tuple[int, ...]) -> dict[int, tuple[float, tuple[int, ...]]]:
    """Token -> its probability after `context`, and the context of what follows it: PPM's escapes by counting.

    Of suffixes that end at the same places only the longest speaks.
    """
    found: dict[int, tuple[float, tuple[int, ...]]] = {}
    left, places = 1.0, 0
    for suffix in (context[i:] for i in range(len(context))):
        times = {token: n for token in range(4) if (n := occurrences(text, (*suffix, token)))}
        if occurrences(text, suffix) == places or left <= LEAST_PROBABILITY:
            continue
        places, total = occurrences(text, suffix), sum(times.values())
        trust = len(suffix) * total / (len(suffix) * total + len(times)) if times else 0.0
        for token, n in times.items():
            share, after = found.get(token, (0.0, (*suffix, token)))
            found[token] = share + left * trust * n / total, after
        left *= 1 - trust
    return found


@settings(max_examples=150, deadline=None)
@given(texts)
def test_probabilities_are_those_of_counting(text):
    index = SuffixIndex(TreeConfig(num_nodes=12, max_depth=4, topk=3))
    for token in text:
        index.append(token)
    repeated = next((tuple(text[i:]) for i in range(len(text)) if occurrences(text, tuple(text[i:])) > 1), ())
    trie = index.grow(text[-1])
    contexts = [repeated]
    for node in range(1, len(trie)):
        above = trie.parent[node]
        probability, context = continued(text, contexts[above])[trie.tokens[node]]
        assert trie.scores[node] - trie.scores[above] == pytest.approx(math.log(probability))
        contexts.append(context)


def test_frequency_decides():
    """After 1 came 2 twice and 3 once: weights 1*3/(1*3+2) * 2/3 and * 1/3."""
    index = SuffixIndex(TreeConfig(num_nodes=3, max_depth=1, topk=2))
    for token in [1, 2, 8, 1, 3, 9, 1, 2, 7, 1]:
        index.append(token)
    assert paths(index.grow(1)) == {(2,): pytest.approx(0.4), (3,): pytest.approx(0.2)}


def test_longer_matches_weigh_more():
    """4 1 was followed by 3, 1 alone mostly by 2: 3 gets 2/(2+1) and its share of the rest, 2 only of the rest."""
    index = SuffixIndex(TreeConfig(num_nodes=3, max_depth=1, topk=2))
    for token in [4, 1, 3, 9, 1, 2, 8, 1, 2, 7, 4, 1]:
        index.append(token)
    rest = (1 / 3) * 3 / 5
    expected = {(3,): pytest.approx(2 / 3 + rest / 3, abs=1e-4), (2,): pytest.approx(rest * 2 / 3, abs=1e-4)}
    assert paths(index.grow(1)) == expected
