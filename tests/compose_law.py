"""Exact output law of a whole tree, composed from what the reference does at one node: every subtree is done once."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from enumerate_law import CoupledRound, Script, ScriptedRound, Verify, outcomes
from small_cases import Context, Laws
from torch import Tensor

from eagle_kernels.reference import rejection

Tree = tuple["Tree", ...]  # the subtrees below the root, in order
Below = tuple[Tensor, float]  # law of the text after a node, times the node's acceptance; probability of its rejection


def as_tree(parents: list[int], node: int = 0) -> Tree:
    return tuple(as_tree(parents, child) for child, above in enumerate(parents) if above == node)


class NodeRound(ScriptedRound):
    """One node of a tree and its children, each of which stands for everything that hangs below it.

    A child has no logits, so the reference goes no further there and returns it without a token. If it looks at leaves
    first (traversal), it asks for the child's logits before the child's coin: that coin is for the whole subtree, and
    its probability is the subtree's reach.
    """

    def __init__(
        self, top: int, context: Context, num_children: int, num_fixed: int, target: Laws, draft: Laws, script: Script
    ) -> None:
        parents = [*range(-1, top), *[top] * num_children]
        super().__init__(parents, [num_fixed] * len(parents), target, draft, script)
        self.top, self.above = top, context
        self.entered: set[int] = set()
        self.reach: dict[int, float] = {}

    def context(self, node: int) -> Context:
        return self.above if node == self.top else (*self.above, self.token(node))

    def target(self, node: int) -> Tensor | None:
        if node == self.top:
            return super().target(node)
        self.entered.add(node)
        return None

    def coin(self, node: int, probability: float) -> bool:
        if node in self.entered:
            self.reach[node] = min(probability, 1.0)
        return super().coin(node, probability)


class CoupledNodeRound(CoupledRound, NodeRound):
    """The same for drafts that know the target's choice."""


class Subtree(NamedTuple):
    child: int  # 0 for the first
    token: int
    reach: float


class Visit(NamedTuple):
    """How the reference leaves a node: rejected (neither), or with a token, or with an accepted child."""

    failed: tuple[Subtree, ...]  # rejected before
    token: int | None
    accepted: Subtree | None


class TreeLaws:
    """Laws of trees over one table of laws, by dynamic programming over (subtree, context, reach).

    The reference meets a child's subtree in two ways only: it passes down the child's token and reach, and learns
    whether the subtree was accepted. So a node's own draws and coins are enumerated once for (number of children,
    context, reach) with all subtrees cut off; then the laws of the subtrees take the place of their coins.

    num_fixed: how many of a node's children are fixed, given their number
    """

    def __init__(
        self,
        verify: Verify,
        target: Laws,
        draft: Laws,
        num_fixed: Callable[[int], int] = lambda num_children: 0,
        round_type: type[NodeRound] = NodeRound,
    ) -> None:
        self.verify, self.target, self.draft = verify, target, draft
        self.num_fixed, self.round_type = num_fixed, round_type
        self.visits: dict[tuple[int, Context, float], dict[Visit, float]] = {}
        self.laws: dict[tuple[Tree, Context, float], Below] = {}

    def below(self, tree: Tree, context: Context = (), reach: float = 1.0) -> Below:
        """What becomes of a tree whose top node follows the context and is reached with this probability."""
        key = tree, context, reach
        if key not in self.laws:
            self.laws[key] = self.compose(*key)
        return self.laws[key]

    def compose(self, tree: Tree, context: Context, reach: float) -> Below:
        """Every way through the top node, a subtree's coin replaced by what the subtree itself does."""
        law, rejected = torch.zeros_like(self.target.text(context)), 0.0
        for visit, weight in self.visit(len(tree), context, reach).items():
            for child, token, child_reach in visit.failed:
                weight *= self.below(tree[child], (*context, token), child_reach)[1] / (1 - child_reach)
            if visit.accepted is not None:
                child, token, child_reach = visit.accepted
                law[token] += weight / child_reach * self.below(tree[child], (*context, token), child_reach)[0]
            elif visit.token is not None:
                law[visit.token] += weight * self.target.text((*context, visit.token))
            else:
                rejected += weight
        return law, rejected

    def visit(self, num_children: int, context: Context, reach: float) -> dict[Visit, float]:
        """The probability of every way through a node."""
        key = num_children, context, reach
        if key not in self.visits:
            self.visits[key] = defaultdict(float)
            for weight, visit in outcomes(partial(self.play, *key)):
                self.visits[key][visit] += weight
        return self.visits[key]

    def play(self, num_children: int, context: Context, reach: float, script: Script) -> Visit:
        """One outcome of the reference at a node without subtrees."""
        inner = self.verify is rejection.verify_by_traversal and context != ()
        top = 1 if inner else 0  # node 0 is accepted without a coin
        num_fixed = self.num_fixed(num_children)
        round = self.round_type(top, context, num_children, num_fixed, self.target, self.draft, script)
        path: list[int] = []
        if inner:
            bonus_token = rejection._traverse(round, top, reach, path)
            path.reverse()
        else:
            path, bonus_token = self.verify(round)

        def subtree(node: int) -> Subtree:
            return Subtree(node - top - 1, round.token(node), round.reach.get(node, 1.0))

        failed = tuple(subtree(node) for node in round.reach if node not in path)
        match path:
            case []:
                return Visit(failed, None, None)
            case [_]:
                return Visit(failed, bonus_token, None)
            case [_, child]:
                return Visit(failed, None, subtree(child))
        raise ValueError(f"The reference went on below a child without logits: path {path}.")
