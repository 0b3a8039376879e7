"""Exact verification of sampled drafts as an algorithm on log-laws, apart from where laws and noise come from."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Round(Protocol):
    """One request's draft tree with the laws behind it and the random choices of its verification."""

    def children(self, node: int) -> list[int]:
        """Children in draw order, the fixed ones first."""

    def num_fixed(self, node: int) -> int:
        """How many of the children were not sampled but chosen by the draft's law alone."""

    def token(self, node: int) -> int:
        """The node's draft token."""

    def target(self, node: int) -> Tensor | None:
        """The log of the target's law after the node, float64 [vocabulary]; None if its logits are invalid."""

    def draft(self, node: int) -> Tensor:
        """The log of the law that the node's first sampled child was drawn from, before fixed ones were excluded."""

    def coin(self, node: int, probability: float) -> bool:
        """True with the given probability (1 or more: always); one coin per node."""

    def draw(self, node: int, log_law: Tensor) -> int:
        """A token with this law."""


@dataclass
class Residual:
    """What a node's target law still owes (`law`), and the law of its next child (`proposal`): logs, both normalised.

    In logs nothing underflows: at low temperatures a law without its likeliest tokens is still a law.
    """

    law: Tensor
    proposal: Tensor

    def reject(self, token: int, scale: float) -> float:
        """Subtracts the proposal from scale * law and excludes the token; returns the mass left before normalising.

        When nothing is left, law is what it was: the two laws agree up to rounding.
        """
        owed = self.law + math.log(scale) if scale > 0 else torch.full_like(self.law, -torch.inf)
        left = torch.where(self.proposal < owed, owed + torch.log(-torch.expm1(self.proposal - owed)), -torch.inf)
        mass = float(left.logsumexp(-1).exp())
        if mass > 0:
            self.law = normalise(left)
        self.exclude(token)
        return mass

    def exclude(self, token: int) -> None:
        if not 0 <= token < len(self.proposal):
            return
        self.proposal = self.proposal.index_fill(0, torch.tensor(token, device=self.law.device), -torch.inf)
        if (self.proposal > -torch.inf).any():
            self.proposal = normalise(self.proposal)

    def ratio(self, token: int) -> float | None:
        """law(token) / proposal(token), None where the next child cannot be `token`."""
        if not 0 <= token < len(self.proposal) or self.proposal[token] == -torch.inf:
            return None
        return float((self.law[token] - self.proposal[token]).exp())


def normalise(log_law: Tensor) -> Tensor:
    return log_law - log_law.logsumexp(-1)


def _begin(round: Round, node: int, law: Tensor) -> tuple[Residual, list[int], list[int]]:
    """The node's residual, its fixed and its sampled children; those that the draft cannot have drawn are left out."""
    children = round.children(node)
    fixed, sampled = children[: round.num_fixed(node)], children[round.num_fixed(node) :]
    residual = Residual(law, round.draft(node) if sampled else torch.full_like(law, -torch.inf))
    for child in fixed:
        if sampled:
            residual.exclude(round.token(child))
    return residual, fixed, sampled


def verify_recursively(round: Round) -> tuple[list[int], int]:
    """Tests siblings in draw order and walks down: the accepted nodes from the root, and the token after them.

    A sampled child x is accepted with probability law(x) / proposal(x); otherwise law becomes what max(law - proposal,
    0) leaves and x is excluded from the proposal: recursive rejection without replacement (Jeon et al., arXiv
    2402.14160; Chen et al., Sequoia, arXiv 2402.12374; one child: Leviathan et al., arXiv 2211.17192). Then a token is
    drawn from the law that is left; if it is one of the fixed children, that child is accepted. With k - 1 fixed
    children and one sample this is the optimal rule of Hu et al., arXiv 2502.20012: p(S) + sum min(p, q') outside S.
    """
    path = [0]
    while True:
        law = round.target(path[-1])
        if law is None:
            return path, -1
        residual, fixed, sampled = _begin(round, path[-1], law)
        accepted = _first_accepted(round, residual, sampled)
        if accepted is None:
            token = round.draw(path[-1], residual.law)
            accepted = next((child for child in fixed if round.token(child) == token), None)
            if accepted is None:
                return path, token
        path.append(accepted)


def _first_accepted(round: Round, residual: Residual, sampled: list[int]) -> int | None:
    for child in sampled:
        ratio = residual.ratio(round.token(child))
        if ratio is None:
            continue
        if round.coin(child, ratio) or residual.reject(round.token(child), 1.0) <= 0:
            return child
    return None


def verify_by_traversal(round: Round) -> tuple[list[int], int]:
    """Tests paths from the leaves up: a node is tested after its subtree failed, with what the subtree left over.

    Traversal verification (Weng et al., arXiv 2505.12398); on a chain it is block verification (Sun et al., arXiv
    2403.10444), the optimal rule there. Every child must have been sampled.
    """
    path: list[int] = []
    bonus_token = _traverse(round, 0, 1.0, path)
    return path[::-1], -1 if bonus_token is None else bonus_token


def _traverse(round: Round, node: int, reach: float, path: list[int]) -> int | None:
    """The token after the accepted node of this subtree, whose path is appended from below; None if all are rejected.

    reach: probability that the node is accepted, given how its path fared against the draft's law
    """
    law = round.target(node)
    if law is None:
        return -1 if _accept(round, node, reach, path) else None
    residual, _, sampled = _begin(round, node, law)
    for child in sampled:
        ratio = residual.ratio(round.token(child))
        if ratio is None:
            continue
        found = _traverse(round, child, min(reach * ratio, 1.0), path)
        if found is not None:
            path.append(node)
            return found
        left = residual.reject(round.token(child), reach)
        reach = 1.0 if reach >= 1 else left / (left + 1 - reach)
    return round.draw(node, residual.law) if _accept(round, node, reach, path) else None


def _accept(round: Round, node: int, reach: float, path: list[int]) -> bool:
    accepted = node == 0 or round.coin(node, reach)
    if accepted:
        path.append(node)
    return accepted
