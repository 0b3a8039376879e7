"""Auto mode from round to round: what it hands to the method, what it takes from each round, and what it forgets."""

import pytest
import torch
from models import tiny_target

from eagle_decoding import TreeConfig
from eagle_decoding.drafts import Commit
from eagle_decoding.drafts.auto import AutoDraft, shallower
from eagle_decoding.drafts.calibration import Calibration
from eagle_decoding.drafts.costs import RowCosts
from eagle_decoding.drafts.growth import GrowingDraft
from eagle_decoding.drafts.policy import Policy
from eagle_decoding.drafts.trie import Trie, to_draft_tree

ROOTS, CONTEXT = torch.tensor([4, 4], dtype=torch.int32), torch.tensor([11, 9], dtype=torch.int32)
LIKELY, RARE = 0.0, -3.0  # scores
WORTH = {score: Calibration().probability(score) for score in (LIKELY, RARE)}


class Told(GrowingDraft):
    """Drafts 8 and, likelier, 5 6 for the first request, and 7 for the second; notes the commits that it gets."""

    feature_layers = ()

    def __init__(self):
        self.tree = TreeConfig(8, 3, 2)

    def start(self, prompt, lengths, params):
        self.commits = []

    def extend(self, commit):
        self.commits.append(commit)

    def propose(self, root_tokens, context_len):
        tries = [Trie(4, 4), Trie(4, 4)]
        tries[0].add_path([(8, RARE)])
        tries[0].add_path([(5, LIKELY), (6, RARE)])
        tries[1].add_path([(7, RARE)])
        return to_draft_tree(tries, context_len)


@pytest.fixture
def auto() -> AutoDraft:
    """Started for two requests; it drafts in every round, one level, and verifies all of it."""
    auto = AutoDraft(Told(), 8, tiny_target())
    policy = auto.policies[2] = Policy(RowCosts({1: 1.0, 4: 2.0}), max_depth=3)
    policy.behind = []
    policy.depth = lambda rows: policy.behind.append(rows) or 1
    policy.choose = lambda accepted, depth: len(accepted)
    auto.start(ROOTS[:, None].long(), torch.ones_like(ROOTS), None)
    return auto


def commit(tokens: list[list[int]], num_rows: list[int]) -> Commit:
    rows = torch.tensor(tokens, dtype=torch.int32)
    return Commit(rows, rows[..., None].float(), rows, CONTEXT, torch.tensor(num_rows, dtype=torch.int32), 30)


PROMPT = commit([[4] * 11] * 2, [11, 9])
ROUND = commit([[5, 6, 9], [3, 0, 0]], [3, 1])  # two drafts and a token, and a token


def test_what_drafts_are_expected_to_yield(auto):
    """The best rows first, and the mean over requests: of these the second has but one draft."""
    first, second = Trie(4, 4), Trie(4, 4)
    first.add_path([(8, RARE)])
    first.add_path([(5, LIKELY), (6, RARE)])
    second.add_path([(7, RARE)])
    likely, rare = WORTH.values()
    both = [first, second]
    best_rows = [0, likely / 2 + rare / 2, likely / 2 + rare, likely / 2 + 1.5 * rare]
    assert auto.expected(both) == pytest.approx(best_rows)
    assert auto.levels(both, 2) == pytest.approx([likely / 2 + rare, rare / 2])
    assert auto.levels(both, 1) == pytest.approx([likely / 2 + 1.5 * rare])


def test_a_round_teaches_which_drafts_hold(auto):
    """5 and 6 were accepted, 8 and 7 were not; the requests emitted three tokens and one, two in the mean."""
    auto.extend(PROMPT)
    auto.propose(ROOTS, CONTEXT)
    assert auto.policy.tokens == 0
    auto.extend(ROUND)
    by_hand = Calibration()
    by_hand.observe([(RARE, False), (LIKELY, True), (RARE, True), (RARE, False)], batch=2)
    assert auto.policy.tokens == 2
    assert auto.calibration.rate == pytest.approx(by_hand.rate)
    assert auto.policy.luck == auto.calibration.luck == pytest.approx(by_hand.luck)


def test_a_prompt_is_no_usual_commit(auto, monkeypatch):
    """Of 12 rows in six seconds one is what every round brings, half a second; the others are reading."""
    auto.extend(PROMPT)
    auto.policy.depth = lambda rows: auto.policy.behind.append(rows) or 0
    auto.propose(ROOTS, CONTEXT)
    auto.extend(commit([[5], [6]], [1, 1]))
    auto.policy.depth = lambda rows: auto.policy.behind.append(rows) or 1
    ticks = iter([0.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(auto, "clock", lambda: next(ticks))
    auto.policy.costs = RowCosts({1: 1.0, 4: 2.0})  # the plain round was timed by the machine's clock
    auto.propose(ROOTS, CONTEXT)
    assert auto.policy.behind == [10, 11]
    assert auto.policy.rows_read == 11 and auto.policy.reading_time == pytest.approx(5.5)
    assert list(auto.policy.draft_times[1]) == pytest.approx([0.5 + 1.0])


@pytest.mark.parametrize("last", [0, 1], ids=["plain", "drafted"])
def test_a_new_call_knows_nothing_of_the_last_ones_round(auto, last):
    """The last round of a call has no commit: its tree, its time and its rows must not meet the next prompt."""
    auto.extend(PROMPT)
    auto.policy.depth = lambda rows: 0
    auto.propose(ROOTS, CONTEXT)
    auto.extend(commit([[3], [3]], [1, 1]))
    auto.policy.depth = lambda rows: last
    auto.propose(ROOTS, CONTEXT)
    rate, rounds = list(auto.calibration.rate), auto.policy.costs.rounds
    auto.start(ROOTS[:, None].long(), torch.ones_like(ROOTS), None)
    auto.extend(PROMPT)
    assert (auto.policy.tokens, auto.policy.costs.rounds, auto.calibration.rate) == (0, rounds, rate)
    auto.policy.depth = lambda rows: 1
    auto.propose(ROOTS, CONTEXT)
    assert auto.draft.commits == [PROMPT]


def test_every_depth_is_cut_from_the_whole_tree(auto):
    auto.extend(PROMPT)
    for depth in (1, 3):
        auto.drafted(depth, ROOTS, CONTEXT)
        assert auto.draft.tree == shallower(TreeConfig(8, 3, 2), depth)
