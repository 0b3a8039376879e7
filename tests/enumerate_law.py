"""Exact output law of a verification algorithm: every draw and every coin of a small case, with its probability."""

from collections.abc import Callable, Iterator
from itertools import product

from torch import Tensor

from eagle_kernels.reference import rejection

Laws = dict[tuple[int, ...], Tensor]  # context (tokens after the root) -> law of the next token


def all_trees(max_nodes: int, max_depth: int) -> Iterator[list[int]]:
    """Parent lists of all ordered trees, nodes in level order of generation (depth first, parent < node)."""

    def grow(parents: list[int], depth: list[int]) -> Iterator[list[int]]:
        yield parents
        if len(parents) == max_nodes:
            return
        last = len(parents) - 1
        rightmost = []  # a new node may hang below any node of the rightmost path: every tree appears once
        while last >= 0:
            rightmost.append(last)
            last = parents[last]
        for above in rightmost:
            if depth[above] < max_depth:
                yield from grow([*parents, above], [*depth, depth[above] + 1])

    yield from grow([-1], [0])


class Script:
    """Replays a list of choices and extends it: depth-first search over all outcomes of a random program."""

    def __init__(self) -> None:
        self.choices: list[tuple[int, list[float]]] = []
        self.cursor = 0

    def choose(self, probabilities: list[float]) -> int:
        if self.cursor == len(self.choices):
            first = next(i for i, p in enumerate(probabilities) if p > 0)
            self.choices.append((first, probabilities))
        self.cursor += 1
        return self.choices[self.cursor - 1][0]

    def weight(self) -> float:
        weight = 1.0
        for index, probabilities in self.choices:
            weight *= probabilities[index]
        return weight

    def advance(self) -> bool:
        """Moves to the next outcome; False after the last."""
        self.cursor = 0
        while self.choices:
            index, probabilities = self.choices.pop()
            later = next((i for i in range(index + 1, len(probabilities)) if probabilities[i] > 0), None)
            if later is not None:
                self.choices.append((later, probabilities))
                return True
        return False


class ScriptedRound:
    """rejection.Round with scripted choices; tokens are drawn when first looked at, which changes no law."""

    def __init__(self, parents: list[int], num_fixed: list[int], target: Laws, draft: Laws, script: Script) -> None:
        self.parents, self.fixed, self.laws, self.proposals, self.script = parents, num_fixed, target, draft, script
        self.tokens: dict[int, int] = {}

    def children(self, node: int) -> list[int]:
        return [n for n, above in enumerate(self.parents) if above == node]

    def num_fixed(self, node: int) -> int:
        return self.fixed[node]

    def context(self, node: int) -> tuple[int, ...]:
        return () if node == 0 else (*self.context(self.parents[node]), self.token(node))

    def token(self, node: int) -> int:
        if node not in self.tokens:
            parent = self.parents[node]
            siblings = self.children(parent)
            index = siblings.index(node)
            law = self.proposals[self.context(parent)].clone()
            taken = [self.token(sibling) for sibling in siblings[:index]]
            law[[t for t in taken if t >= 0]] = 0
            if law.sum() <= 0:
                self.tokens[node] = -1 - index  # more children than tokens: padding that no law can draw
            elif index < self.fixed[parent]:
                self.tokens[node] = int(law.argmax())
            else:
                self.tokens[node] = self.script.choose((law / law.sum()).tolist())
        return self.tokens[node]

    def target(self, node: int) -> Tensor:
        return self.laws[self.context(node)].log()

    def draft(self, node: int) -> Tensor:
        return self.proposals[self.context(node)].log()

    def coin(self, node: int, probability: float) -> bool:
        probability = min(probability, 1.0)
        return self.script.choose([probability, 1 - probability]) == 0

    def draw(self, node: int, log_law: Tensor) -> int:
        return self.script.choose(log_law.softmax(-1).tolist())


def output_law(
    verify: Callable[[rejection.Round], tuple[list[int], int]],
    make_round: Callable[[Script], ScriptedRound],
    target: Laws,
    length: int,
) -> dict[tuple[int, ...], float]:
    """Law of the first `length` tokens: the round's output, continued by plain sampling from the target."""
    vocabulary = len(target[()])
    emitted: dict[tuple[int, ...], float] = {}
    script = Script()
    while True:
        round = make_round(script)
        path, bonus = verify(round)
        tokens = (*(round.token(node) for node in path[1:]), bonus)
        emitted[tokens] = emitted.get(tokens, 0.0) + script.weight()
        if not script.advance():
            break
    law = dict.fromkeys(product(range(vocabulary), repeat=length), 0.0)
    for tokens, weight in emitted.items():
        for rest in product(range(vocabulary), repeat=length - len(tokens)):
            law[tokens + rest] += weight * path_probability(target, tokens + rest, len(tokens))
    return law


def path_probability(target: Laws, tokens: tuple[int, ...], start: int = 0) -> float:
    probability = 1.0
    for i in range(start, len(tokens)):
        probability *= float(target[tokens[:i]][tokens[i]])
    return probability


def total_variation(law: dict[tuple[int, ...], float], target: Laws) -> float:
    return 0.5 * sum(abs(weight - path_probability(target, tokens)) for tokens, weight in law.items())
