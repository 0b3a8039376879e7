"""The output law of every verification mode equals the target's, by enumeration; broken variants do not."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from compose_law import CoupledNodeRound, NodeRound, TreeLaws, as_tree
from enumerate_law import CoupledRound, ScriptedRound, Verify, outcomes, replayed_law, walk
from small_cases import FILTERS, Laws, all_trees, random_laws

from eagle_kernels.reference import rejection

TOLERANCE = 1e-12
RECURSIVE, TRAVERSAL = rejection.verify_recursively, rejection.verify_by_traversal


@dataclass(frozen=True)
class Mode:
    """num_fixed: how many of a node's children are fixed, given their number"""

    verify: Verify = RECURSIVE
    num_fixed: Callable[[int], int] = lambda children: 0
    whole: type[ScriptedRound] = ScriptedRound
    node: type[NodeRound] = NodeRound

    def composed(self, parents: list[int], target: Laws, draft: Laws) -> torch.Tensor:
        return TreeLaws(self.verify, target, draft, self.num_fixed, self.node).below(as_tree(parents))[0]

    def replayed(self, parents: list[int], target: Laws, draft: Laws) -> torch.Tensor:
        fixed = [self.num_fixed(parents.count(node)) for node in range(len(parents))]
        return replayed_law(self.verify, lambda script: self.whole(parents, fixed, target, draft, script), target)


MODES = {
    "sampled": Mode(),
    "hybrid": Mode(num_fixed=lambda children: max(children - 1, 0)),
    "deterministic": Mode(num_fixed=lambda children: children),
    "traversal": Mode(TRAVERSAL),
    "coupled": Mode(walk, whole=CoupledRound, node=CoupledNodeRound),
}


def worst_tree(mode: Mode, vocabulary: int, max_nodes: int, filters: str) -> tuple[float, list[int]]:
    """The largest error and its tree; all trees over one random table of laws, so that equal subtrees are done once."""
    target, draft = random_laws(vocabulary, 3, filters), random_laws(vocabulary, 3, filters)
    laws = TreeLaws(mode.verify, target, draft, mode.num_fixed, mode.node)
    return max((target.distance(laws.below(as_tree(tree))[0]), tree) for tree in all_trees(max_nodes, max_depth=3))


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("mode", MODES)
def test_small_trees_are_exact(mode, filters):
    error, tree = worst_tree(MODES[mode], 3, 6, filters)
    assert error < TOLERANCE, f"tree {tree}: {error}"


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", [3, 4, 5, 6])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("mode", MODES)
def test_every_tree_is_exact(mode, filters, vocabulary):
    error, tree = worst_tree(MODES[mode], vocabulary, 7, filters)
    assert error < TOLERANCE, f"tree {tree}: {error}"


@pytest.mark.parametrize("mode", MODES)
def test_composition_is_the_whole_round(mode):
    """Whole rounds, every outcome of all nodes at once, have the law that is composed node by node."""
    for parents in all_trees(max_nodes=3 if mode == "coupled" else 4, max_depth=3):
        target, draft = random_laws(3, 3, "plain"), random_laws(3, 3, "plain")
        replayed = MODES[mode].replayed(parents, target, draft)
        composed = MODES[mode].composed(parents, target, draft)
        assert float((replayed - composed).abs().sum()) < TOLERANCE, f"tree {parents}"


@pytest.mark.parametrize("mode", ["sampled", "traversal"])
@pytest.mark.parametrize("parents", [[-1, 0, 0, 1, 1], [-1, 0, 0, 0], [-1, 0, 1]])
@pytest.mark.parametrize("filters, drafts", [("plain", [0, 2, 3]), ("top_p", [1])])
def test_reduced_draft_vocabulary_is_exact(mode, parents, filters, drafts):
    """With one draft token there are more children than the draft has tokens."""
    target, draft = random_laws(4, 3, filters), random_laws(4, 3, filters, drafts)
    assert target.distance(MODES[mode].replayed(parents, target, draft)) < TOLERANCE


def expected_length(verify: Verify, parents: list[int], target: Laws, draft: Laws, num_fixed: int = 0) -> float:
    """Mean number of accepted drafts."""
    fixed = [num_fixed] + [0] * (len(parents) - 1)
    rounds = outcomes(lambda script: verify(ScriptedRound(parents, fixed, target, draft, script)))
    return sum(weight * (len(path) - 1) for weight, (path, _) in rounds)


def test_acceptance_of_one_sample_is_the_overlap():
    target, draft = random_laws(5, 1, "plain"), random_laws(5, 1, "plain")
    overlap = float(torch.minimum(target[()], draft[()]).sum())
    assert abs(expected_length(RECURSIVE, [-1, 0], target, draft) - overlap) < TOLERANCE


def test_acceptance_of_hybrid_is_its_closed_form():
    target, draft = random_laws(6, 1, "plain"), random_laws(6, 1, "plain")
    top = draft[()].topk(2).indices
    outside = draft[()].index_fill(0, top, 0)
    outside = outside / outside.sum()
    closed = float(target[()][top].sum() + torch.minimum(target[()], outside).index_fill(0, top, 0).sum())
    assert abs(expected_length(RECURSIVE, [-1, 0, 0, 0], target, draft, num_fixed=2) - closed) < TOLERANCE


def test_traversal_accepts_no_less_on_a_chain():
    for _ in range(5):
        target, draft = random_laws(3, 3, "plain"), random_laws(3, 3, "plain")
        chain = [-1, 0, 1, 2]
        gain = expected_length(TRAVERSAL, chain, target, draft) - expected_length(RECURSIVE, chain, target, draft)
        assert gain > -TOLERANCE


def block_verification(round) -> tuple[list[int], int]:
    """Sun et al. (arXiv 2403.10444), algorithm 2, for a chain: the last position whose coin falls below h."""
    length = len(round.parents) - 1
    reach, accepted, law = 1.0, 0, None
    for i in range(length + 1):
        if i > 0:
            before, token = i - 1, round.token(i)
            reach = min(reach * float((round.target(before)[token] - round.draft(before)[token]).exp()), 1.0)
        target = round.target(i).exp()
        if i == length:
            threshold, weights = reach, target
        else:
            weights = (reach * target - round.draft(i).exp()).clamp(min=0)
            mass = float(weights.sum())
            threshold = mass / (mass + 1 - reach) if mass + 1 - reach > 0 else 1.0
        if i == 0 or round.coin(i, threshold):
            accepted, law = i, weights
    return list(range(accepted + 1)), round.draw(accepted, law.log())


@pytest.mark.parametrize("length", [1, 2, 3])
def test_traversal_of_a_chain_is_block_verification(length):
    parents = list(range(-1, length))
    target, draft = random_laws(3, length, "plain"), random_laws(3, length, "plain")
    block = expected_length(block_verification, parents, target, draft)
    assert abs(expected_length(TRAVERSAL, parents, target, draft) - block) < TOLERANCE
    assert target.distance(Mode(block_verification).replayed(parents, target, draft)) < TOLERANCE


class Budgeted(ScriptedRound):
    """A node's number of children follows from its path and the draft's law there, before any of them is drawn."""

    def children(self, node: int) -> list[int]:
        if not self.parents.count(node):
            return []
        likeliest = int(self.draft(node).argmax())
        own = 0 if node == 0 else self.token(node)
        return super().children(node)[: 1 + (likeliest + own) % 3]


class BudgetedBySibling(ScriptedRound):
    """The first child's number of children follows from the token of the second."""

    def children(self, node: int) -> list[int]:
        children = super().children(node)
        return children[: self.token(2) % 3] if node == 1 else children


@pytest.mark.parametrize("verify", [RECURSIVE, TRAVERSAL])
@pytest.mark.parametrize(
    "budgeted, parents", [(Budgeted, [-1, 0, 0, 0, 1, 1, 2, 3, 3]), (BudgetedBySibling, [-1, 0, 0, 1, 1])]
)
def test_budgets_decided_before_the_draw_are_exact(verify, budgeted, parents):
    """Siblings may decide too: a subtree is accepted with the probability of its top node, whatever hangs below it."""
    target, draft = random_laws(3, 2, "plain"), random_laws(3, 2, "plain")
    assert target.distance(Mode(verify, whole=budgeted).replayed(parents, target, draft)) < TOLERANCE


def is_noticed(broken: Mode) -> bool:
    """Whether some tree under some filter gives a wrong law, and not by a little."""
    return max(worst_tree(broken, 3, 4, filters)[0] for filters in FILTERS) > 0.01


class UnfilteredBonus(NodeRound):
    """Broken on purpose: leaves ignore the filters."""

    def target(self, node: int) -> torch.Tensor | None:
        law = super().target(node)
        return law if law is None or self.children(node) else rejection.normalise((law.exp() + 0.1).log())


class PrunedByValue(NodeRound):
    """Broken on purpose: a sampled child that the draft finds unlikely is dropped after it was drawn."""

    def children(self, node: int) -> list[int]:
        drawn = super().children(node)
        if node in self.looked_at:
            return drawn
        self.looked_at.add(node)
        return [child for child in drawn if float(self.draft(node)[self.token(child)].exp()) >= 0.25]

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.looked_at: set[int] = set()

    def token(self, node: int) -> int:
        self.looked_at.add(self.parents[node])
        return super().token(node)


class DeterministicAsSampled(NodeRound):
    """Broken on purpose: the draft's top tokens, verified as if they had been sampled."""

    def num_fixed(self, node: int) -> int:
        return 0


class SharedNoise(NodeRound):
    """Broken on purpose: the first child and the token after a node are drawn with the same uniform number."""

    def draw(self, node: int, log_law: torch.Tensor) -> int:
        if not self.children(node):
            return super().draw(node, log_law)
        first = self.token(self.children(node)[0])
        above = self.draft(node).exp().cumsum(-1)[first]
        drawn_from = torch.stack([above - self.draft(node)[first].exp(), above])  # where the number must have been
        ends = torch.nn.functional.pad(log_law.exp().cumsum(-1), (1, 0))
        overlap = ends.clamp(*drawn_from).diff()
        return self.script.choose((overlap / overlap.sum()).tolist())


@pytest.mark.parametrize("verify", [RECURSIVE, TRAVERSAL])
@pytest.mark.parametrize("broken", [UnfilteredBonus, PrunedByValue, DeterministicAsSampled, SharedNoise])
def test_broken_rounds_are_noticed(verify, broken):
    num_fixed = MODES["deterministic" if broken is DeterministicAsSampled else "sampled"].num_fixed
    assert is_noticed(Mode(verify, num_fixed, node=broken))


@pytest.mark.parametrize("verify", [RECURSIVE, TRAVERSAL])
@pytest.mark.parametrize("name", ["normalise", "exclude"])
def test_broken_residuals_are_noticed(monkeypatch, verify, name):
    """Residual without renormalising, proposal without excluding what was rejected."""
    if name == "normalise":
        monkeypatch.setattr(rejection, "normalise", lambda log_law: log_law)
    else:
        monkeypatch.setattr(rejection.Residual, "exclude", lambda self, token: None)
    assert is_noticed(Mode(verify))


def test_a_reach_that_is_not_passed_on_is_noticed(monkeypatch):
    """Traversal whose residuals forget how the path fared above."""
    reject = rejection.Residual.reject
    monkeypatch.setattr(rejection.Residual, "reject", lambda self, token, scale: reject(self, token, 1.0))
    assert is_noticed(Mode(TRAVERSAL))
