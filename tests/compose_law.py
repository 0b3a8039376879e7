"""Exact output law of a whole tree, composed from what the reference does at one node: every subtree is done once."""

from collections.abc import Callable
from functools import partial

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

    A child has no logits, so the reference goes no further there and returns it without a token. If it looks at the
    leaves first (traversal), it asks for the child's logits before the child's coin: that coin's probability is the
    reach of the subtree, and the coin falls as the subtree's own law for this reach says.
    """

    def __init__(
        self,
        top: int,
        context: Context,
        num_children: int,
        num_fixed: int,
        target: Laws,
        draft: Laws,
        script: Script,
        below: Callable[[int, int, float], Below],
    ) -> None:
        parents = [*range(-1, top), *[top] * num_children]
        super().__init__(parents, [num_fixed] * len(parents), target, draft, script)
        self.top, self.above, self.below = top, context, below
        self.reach: dict[int, float] = {}

    def context(self, node: int) -> Context:
        return self.above if node == self.top else (*self.above, self.token(node))

    def target(self, node: int) -> Tensor | None:
        if node == self.top:
            return super().target(node)
        self.reach[node] = 1.0
        return None

    def coin(self, node: int, probability: float) -> bool:
        if node not in self.reach:
            return super().coin(node, probability)
        self.reach[node] = probability
        _, rejected = self.below(node, self.token(node), probability)
        return self.script.choose([1.0, rejected]) == 0  # the law below already holds the acceptance


class CoupledNodeRound(CoupledRound, NodeRound):
    """The same for drafts that know the target's choice."""


class TreeLaws:
    """Laws of trees over one table of laws, by dynamic programming over (subtree, context, reach).

    The reference meets a child's subtree in two ways only: it passes down the child's token and its reach, and learns
    whether the subtree was accepted. So a node's own draws and coins are enumerated with its children cut off, and what
    was accepted at a child is followed by the law of the subtree there.

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
        self.known: dict[tuple[Tree, Context, float], Below] = {}

    def below(self, tree: Tree, context: Context = (), reach: float = 1.0) -> Below:
        key = tree, context, reach
        if key not in self.known:
            self.known[key] = self.enumerate(*key)
        return self.known[key]

    def enumerate(self, tree: Tree, context: Context, reach: float) -> Below:
        law, rejected = torch.zeros_like(self.target.text(context)), 0.0
        for weight, (round, path, bonus_token) in outcomes(partial(self.visit, tree, context, reach)):
            if not path:
                rejected += weight
            elif bonus_token >= 0:
                law[bonus_token] += weight * self.target.text((*context, bonus_token))
            else:
                child = path[-1]
                token = round.token(child)
                law[token] += weight * round.below(child, token, round.reach[child])[0]
        return law, rejected

    def visit(self, tree: Tree, context: Context, reach: float, script: Script) -> tuple[NodeRound, list[int], int]:
        inner = self.verify is rejection.verify_by_traversal and context != ()
        top = 1 if inner else 0  # node 0 is accepted without a coin

        def below(child: int, token: int, child_reach: float) -> Below:
            return self.below(tree[child - top - 1], (*context, token), child_reach)

        num_fixed = self.num_fixed(len(tree))
        round = self.round_type(top, context, len(tree), num_fixed, self.target, self.draft, script, below)
        if not inner:
            return round, *self.verify(round)
        path: list[int] = []
        bonus_token = rejection._traverse(round, top, reach, path)
        return round, path[::-1], bonus_token
