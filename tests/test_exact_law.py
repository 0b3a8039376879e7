"""The output law of every verification mode equals the target's, by enumeration; broken variants do not."""

from itertools import product

import pytest
import torch
from enumerate_law import Laws, Script, ScriptedRound, all_trees, output_law, total_variation

from eagle_kernels.reference import rejection
from eagle_kernels.reference.filters import filtered_scores

TOLERANCE = 1e-12
FILTERS = {
    "plain": (1.0, 0, 1.0, 0.0),
    "cold": (0.4, 0, 1.0, 0.0),
    "top_k": (1.0, 2, 1.0, 0.0),
    "top_p": (1.3, 0, 0.7, 0.0),
    "min_p": (1.0, 0, 1.0, 0.3),
    "all": (0.7, 3, 0.9, 0.05),
}
RECURSIVE, TRAVERSAL = rejection.verify_recursively, rejection.verify_by_traversal


def random_laws(vocabulary: int, depth: int, filters: str, drafts: list[int] | None = None, scale: float = 1.5) -> Laws:
    """A random filtered law for every context up to a depth; `drafts` lists the tokens a draft vocabulary has."""
    laws = {}
    for length in range(depth + 1):
        for context in product(range(vocabulary), repeat=length):
            logits = scale * torch.randn(vocabulary, dtype=torch.float64)
            if drafts is not None:
                logits[[t for t in range(vocabulary) if t not in drafts]] = -torch.inf
            params = (torch.tensor([p], dtype=torch.float64) for p in FILTERS[filters])
            laws[context] = filtered_scores(logits[None], *params).softmax(-1)[0]
    return laws


def depth_of(parents: list[int]) -> int:
    depth = [0] * len(parents)
    for node, above in enumerate(parents[1:], 1):
        depth[node] = depth[above] + 1
    return max(depth)


def distance(verify, parents, vocabulary, filters="plain", num_fixed=None, drafts=None, round_type=ScriptedRound):
    depth = depth_of(parents)
    target, draft = random_laws(vocabulary, depth, filters), random_laws(vocabulary, depth, filters, drafts)
    fixed = num_fixed or [0] * len(parents)
    law = output_law(verify, lambda script: round_type(parents, fixed, target, draft, script), target, depth + 1)
    return total_variation(law, target)


def fixed_counts(parents: list[int], rule: str) -> list[int]:
    """sampled: none fixed; hybrid: all but the last; deterministic: all."""
    children = [parents.count(node) for node in range(len(parents))]
    return [{"sampled": 0, "hybrid": max(count - 1, 0), "deterministic": count}[rule] for count in children]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("rule", ["sampled", "hybrid", "deterministic"])
def test_recursive_rejection_is_exact(rule, filters):
    for parents in all_trees(max_nodes=5, max_depth=3):
        error = distance(RECURSIVE, parents, 3, filters, fixed_counts(parents, rule))
        assert error < TOLERANCE, f"tree {parents}: {error}"


@pytest.mark.parametrize("filters", FILTERS)
def test_traversal_is_exact(filters):
    for parents in all_trees(max_nodes=4, max_depth=3):
        error = distance(TRAVERSAL, parents, 3, filters)
        assert error < TOLERANCE, f"tree {parents}: {error}"


@pytest.mark.parametrize("verify", [RECURSIVE, TRAVERSAL])
@pytest.mark.parametrize("parents", [[-1, 0, 0, 1, 1], [-1, 0, 0, 0], [-1, 0, 1]])
def test_reduced_draft_vocabulary_is_exact(verify, parents):
    assert distance(verify, parents, 4, drafts=[0, 2, 3]) < TOLERANCE
    assert distance(verify, parents, 4, "top_p", drafts=[1]) < TOLERANCE  # more children than the draft has tokens


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary, max_nodes", [(3, 7), (4, 6), (5, 5), (6, 4)])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("rule", ["sampled", "hybrid", "deterministic", "traversal"])
def test_every_tree_is_exact(rule, filters, vocabulary, max_nodes):
    for parents in all_trees(max_nodes, max_depth=3):
        fixed = None if rule == "traversal" else fixed_counts(parents, rule)
        error = distance(TRAVERSAL if rule == "traversal" else RECURSIVE, parents, vocabulary, filters, fixed)
        assert error < TOLERANCE, f"tree {parents}: {error}"


def expected_length(verify, parents, target, draft, num_fixed=None):
    """Mean number of accepted drafts."""
    script, mean = Script(), 0.0
    while True:
        path, _ = verify(ScriptedRound(parents, num_fixed or [0] * len(parents), target, draft, script))
        mean += script.weight() * (len(path) - 1)
        if not script.advance():
            return mean


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
    assert abs(expected_length(RECURSIVE, [-1, 0, 0, 0], target, draft, [2, 0, 0, 0]) - closed) < TOLERANCE


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
    assert distance(block_verification, parents, 3) < TOLERANCE


class UnfilteredBonus(ScriptedRound):
    """Broken on purpose: leaves ignore the filters."""

    def target(self, node: int) -> torch.Tensor:
        law = super().target(node)
        return law if self.children(node) else rejection.normalise((law.exp() + 0.1).log())


class PrunedByValue(ScriptedRound):
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


class DeterministicAsSampled(ScriptedRound):
    """Broken on purpose: the draft's top tokens, verified as if they had been sampled."""

    def num_fixed(self, node: int) -> int:
        return 0


@pytest.mark.parametrize("broken", [UnfilteredBonus, PrunedByValue, DeterministicAsSampled])
def test_broken_rounds_are_noticed(broken):
    parents = [-1, 0, 0]
    fixed = fixed_counts(parents, "deterministic" if broken is DeterministicAsSampled else "sampled")
    errors = [distance(RECURSIVE, parents, 4, "top_k", fixed, round_type=broken) for _ in range(3)]
    assert max(errors) > 0.01, f"{broken.__name__} went unnoticed: {errors}"


@pytest.mark.parametrize("name", ["normalise", "exclude"])
def test_broken_residuals_are_noticed(monkeypatch, name):
    """Residual without renormalising, proposal without excluding what was rejected."""
    if name == "normalise":
        monkeypatch.setattr(rejection, "normalise", lambda log_law: log_law)
    else:
        monkeypatch.setattr(rejection.Residual, "exclude", lambda self, token: None)
    errors = [distance(RECURSIVE, [-1, 0, 0, 0], 4) for _ in range(6)]
    assert max(errors) > 0.01, f"went unnoticed: {errors}"


class Budgeted(ScriptedRound):
    """A node's number of children follows from its path and the draft's law there, before any of them is drawn."""

    def children(self, node: int) -> list[int]:
        if not self.parents.count(node):
            return []
        likeliest = int(self.draft(node).argmax())
        own = 0 if node == 0 else self.token(node)
        return super().children(node)[: 1 + (likeliest + own) % 3]


@pytest.mark.parametrize("verify", [RECURSIVE, TRAVERSAL])
def test_budgets_decided_before_the_draw_are_exact(verify):
    assert distance(verify, [-1, 0, 0, 0, 1, 1, 2, 3, 3], 3, round_type=Budgeted) < TOLERANCE


class BudgetedBySibling(ScriptedRound):
    """The first child's number of children follows from the token of the second."""

    def children(self, node: int) -> list[int]:
        children = super().children(node)
        return children[: self.token(2) % 3] if node == 1 else children


@pytest.mark.parametrize("verify", [RECURSIVE, TRAVERSAL])
def test_budgets_that_tell_about_siblings_are_exact(verify):
    """A subtree is accepted with the probability of its top node, whatever hangs below it."""
    assert distance(verify, [-1, 0, 0, 1, 1], 3, round_type=BudgetedBySibling) < TOLERANCE
