"""Suffix drafting: the text's own statistics after its repeated suffixes (cf. SuffixDecoding, arXiv 2411.04975)."""

import heapq
import math
from itertools import count

from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.suffix_automaton import SuffixAutomaton
from eagle_decoding.drafts.trie import Trie

LEAST_PROBABILITY = 0.05  # a draft less likely than this rarely repays its row of the forward
TREE = TreeConfig(num_nodes=8, max_depth=7, topk=4)


class SuffixIndex:
    """A suffix automaton of one request's text, from which trees grow best first.

    tree: num_nodes is the budget, max_depth the longest path, topk the most children of a node
    """

    def __init__(self, tree: TreeConfig):
        self.tree = tree
        self.automaton = SuffixAutomaton()

    def append(self, token: int) -> None:
        self.automaton.append(token)

    def grow(self, root: int) -> Trie:
        """Adds the likeliest paths one node at a time, whatever their depth, until the budget is used up."""
        trie = Trie(root, self.tree.num_nodes)
        order = count()
        frontier: list[tuple[float, int, int, int, int, int]] = []  # (-score, order, parent, token, state, matched)

        def look_beyond(node: int, cost: float, state: int, matched: int) -> None:
            for token, probability, after, length in self.continuations(state, matched):
                child_cost = cost - math.log(probability)
                if child_cost <= -math.log(LEAST_PROBABILITY):
                    heapq.heappush(frontier, (child_cost, next(order), node, token, after, length))

        state = self.automaton.repeated
        look_beyond(0, 0.0, state, self.automaton.length[state])
        while frontier and not trie.full:
            cost, _, parent, token, state, matched = heapq.heappop(frontier)
            node = trie.append(parent, token, -cost)
            if trie.depth[node] < self.tree.max_depth:
                look_beyond(node, cost, state, matched)
        return trie

    def continuations(self, state: int, matched: int) -> list[tuple[int, float, int, int]]:
        """(token, probability, state, tokens matched) of the likeliest next tokens after a substring of the text.

        A suffix of m tokens that was followed n times, by t different tokens, speaks with weight m * n / (m * n + t)
        of what longer suffixes left over: the escape of PPM (Cleary and Witten 1984) with a trust that grows with m.
        """
        automaton, left = self.automaton, 1.0
        found: dict[int, tuple[float, int, int]] = {}
        while state > 0 and left > LEAST_PROBABILITY:
            counts = {token: automaton.count[after] for token, after in automaton.next[state].items()}
            total = sum(counts.values())
            if total:
                trust = matched * total / (matched * total + len(counts))
                for token, times in counts.items():
                    share, after, length = found.get(token, (0.0, automaton.next[state][token], matched + 1))
                    found[token] = (share + left * trust * times / total, after, length)
                left *= 1 - trust
            state = automaton.link[state]
            matched = automaton.length[state]
        ranked = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[: self.tree.topk]
        return [(token, *rest) for token, rest in ranked]
