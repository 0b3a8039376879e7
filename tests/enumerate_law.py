"""Exact output law of a verification algorithm: every draw and every coin of a small case, with its probability."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from small_cases import Context, Laws
from torch import Tensor

from eagle_kernels.reference import rejection
from eagle_kernels.reference.verify_tree import verify_tree

Verify = Callable[[rejection.Round], tuple[list[int], int]]


class Script:
    """Replays a list of choices and extends it: depth-first search over all outcomes of a random program."""

    def __init__(self) -> None:
        self.choices: list[tuple[int, list[float]]] = []
        self.cursor = 0

    def choose(self, weights: list[float]) -> int:
        if self.cursor == len(self.choices):
            first = next(i for i, weight in enumerate(weights) if weight > 0)
            self.choices.append((first, weights))
        self.cursor += 1
        return self.choices[self.cursor - 1][0]

    def weight(self) -> float:
        product = 1.0
        for index, weights in self.choices:
            product *= weights[index]
        return product

    def advance(self) -> bool:
        """Moves to the next outcome; False after the last."""
        self.cursor = 0
        while self.choices:
            index, weights = self.choices.pop()
            later = next((i for i in range(index + 1, len(weights)) if weights[i] > 0), None)
            if later is not None:
                self.choices.append((later, weights))
                return True
        return False


def outcomes(program: Callable[[Script], Any]) -> Iterator[tuple[float, Any]]:
    """Every outcome of a random program with the product of the weights of its choices."""
    script = Script()
    while True:
        outcome = program(script)
        yield script.weight(), outcome
        if not script.advance():
            return


class ScriptedRound:
    """rejection.Round with scripted choices; tokens are drawn when first looked at, which changes no law."""

    def __init__(self, parents: list[int], num_fixed: list[int], target: Laws, draft: Laws, script: Script) -> None:
        self.parents, self.fixed, self.laws, self.proposals, self.script = parents, num_fixed, target, draft, script
        self.tokens: dict[int, int] = {}

    def children(self, node: int) -> list[int]:
        return [n for n, above in enumerate(self.parents) if above == node]

    def num_fixed(self, node: int) -> int:
        return self.fixed[node]

    def context(self, node: int) -> Context:
        return () if node == 0 else (*self.context(self.parents[node]), self.token(node))

    def token(self, node: int) -> int:
        if node not in self.tokens:
            parent = self.parents[node]
            siblings = self.children(parent)
            index = siblings.index(node)
            taken = tuple(self.token(sibling) for sibling in siblings[:index])
            law = self.proposals.without(self.drawn_from(parent), taken)
            if not any(law):
                self.tokens[node] = -1 - index  # more children than tokens: padding that no law can draw
            elif index < self.fixed[parent]:
                self.tokens[node] = law.index(max(law))
            else:
                self.tokens[node] = self.script.choose(law)
        return self.tokens[node]

    def drawn_from(self, node: int) -> Context:
        """Where the law of the node's children stands in the table."""
        return self.context(node)

    def target(self, node: int) -> Tensor | None:
        return self.laws[self.context(node)].log()

    def draft(self, node: int) -> Tensor:
        return self.proposals[self.context(node)].log()

    def coin(self, node: int, probability: float) -> bool:
        probability = min(probability, 1.0)
        return self.script.choose([probability, 1 - probability]) == 0

    def draw(self, node: int, log_law: Tensor) -> int:
        return self.script.choose(log_law.softmax(-1).tolist())


class CoupledRound(ScriptedRound):
    """The target's tokens are chosen first, and a node's children drawn from a law that knows the choice there.

    Any draft that looks at the noise which chooses the target's tokens is some such law.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.choices: dict[int, int] = {}

    def choice(self, node: int) -> int:
        if node not in self.choices:
            law = self.target(node)
            self.choices[node] = -1 if law is None else self.draw(node, law)
        return self.choices[node]

    def drawn_from(self, node: int) -> Context:
        return (*self.context(node), self.choice(node))


def walk(round: CoupledRound) -> tuple[list[int], int]:
    """verify_tree on a round's drafts and choices."""
    nodes = range(len(round.parents))
    path, bonus_token = walked((0, *map(round.token, nodes[1:])), tuple(round.parents), tuple(map(round.choice, nodes)))
    return list(path), bonus_token


@cache
def walked(*rows: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    tensors = (torch.tensor([row], dtype=torch.int32) for row in rows)
    accept_index, accept_length, bonus_token = verify_tree(*tensors, max_depth=len(rows[0]))
    return tuple(accept_index[0, : int(accept_length) + 1].tolist()), int(bonus_token)


def replayed_law(verify: Verify, make_round: Callable[[Script], ScriptedRound], target: Laws) -> Tensor:
    """Law of the text: every outcome of a whole round, continued by plain sampling from the target."""

    def emitted(script: Script) -> Context:
        round = make_round(script)
        path, bonus_token = verify(round)
        return (*map(round.token, path[1:]), bonus_token)

    law = torch.zeros_like(target.text())
    for weight, tokens in outcomes(emitted):
        law[tokens] += weight * target.text(tokens)
    return law
