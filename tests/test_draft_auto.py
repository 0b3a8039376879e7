"""Auto mode: its arithmetic on invented machines, what it learns, and that plain rounds keep the head informed."""

import random

import pytest
import torch
from models import eagle_decoder, prompts, tiny_target

from eagle_decoding import SpeculativeDecoder, TreeConfig
from eagle_decoding.drafts import Commit, load_draft
from eagle_decoding.drafts.auto import AutoDraft, joined, shallower
from eagle_decoding.drafts.calibration import Calibration
from eagle_decoding.drafts.costs import STALE, RowCosts, measure
from eagle_decoding.drafts.policy import INCOME, LEAST_STAKE, STAKE, WARM_UP, Policy
from eagle_decoding.target import Target

FORWARD = {1: 1.0, 2: 1.05, 4: 1.15, 8: 1.35, 16: 2.4}  # seconds by rows, the shape of a CPU


def simulate(acceptance: float, level_seconds: float, tokens: int = 4000) -> tuple[float, float]:
    """Decodes on an invented machine where each level of a chain is accepted with one probability.

    Returns speed against plain decoding, and the mean depth drafted.
    """
    costs, coin = RowCosts(dict(FORWARD)), random.Random(0)
    policy, seconds, emitted, depths, rounds = Policy(costs, max_depth=6), 0.0, 0, 0, 0
    while emitted < tokens:
        depth = policy.depth(rows_behind=0)
        rows, spent = 1, 0.0
        if depth:
            spent = level_seconds * (depth + 0.5)
            policy.observe_draft(depth, spent)
            levels = [acceptance**level for level in range(1, depth + 1)]
            rows = policy.choose([sum(levels[:n]) for n in range(depth + 1)], depth)
            policy.learn(levels[: rows - 1] + [0.0] * (depth + 1 - rows))
        accepted = 0
        while accepted < rows - 1 and coin.random() < acceptance:
            accepted += 1
        verification = FORWARD[costs.size(rows)]
        costs.observe(rows, verification)
        policy.settle(rows, 1 + accepted)
        seconds += spent + verification
        emitted += 1 + accepted
        depths, rounds = depths + depth, rounds + 1
    return emitted / seconds, depths / rounds


@pytest.mark.parametrize("acceptance", [0.0, 0.05, 0.1])
def test_it_does_not_lose_where_drafts_fail(acceptance):
    speed, depth = simulate(acceptance, level_seconds=0.08)
    assert speed > 0.98
    assert depth < 0.3


def test_it_wins_where_drafts_hold():
    speed, depth = simulate(0.8, level_seconds=0.05)
    assert speed > 1.9
    assert depth > 3


def test_it_drafts_shallow_where_depth_is_dear():
    shallow, deep = simulate(0.5, level_seconds=0.15), simulate(0.5, level_seconds=0.01)
    assert shallow[1] < deep[1]
    assert 0.98 < shallow[0] < deep[0]


def test_a_prompt_that_costs_more_than_drafting_saves_is_left_alone():
    policy = Policy(RowCosts(dict(FORWARD)), max_depth=4)
    while policy.depth(0) == 0:  # warm-up rounds
        pass
    policy.observe_draft(4, 0.3)
    policy.observe_reading(100, 10.0)
    policy.spent = 0.0
    assert policy.depth(rows_behind=0) > 0
    assert policy.depth(rows_behind=100_000) == 0


def test_what_it_may_lose_is_limited():
    """Drafts that cost three rounds each, promise five tokens and yield none: no stretch loses more than the bound."""
    policy, losses = Policy(RowCosts(dict(FORWARD)), max_depth=1), []
    policy.choose([sum([0.9] * n) for n in range(6)], 1)
    for _ in range(3000):
        depth = policy.depth(rows_behind=0)
        if depth:
            policy.observe_draft(depth, 3.0)
        rows = 4 if depth else 1
        policy.costs.observe(rows, FORWARD[rows])
        policy.settle(rows, 1)
        losses.append((3.0 + FORWARD[4] - 1) if depth else 0.0)
        policy.parents, policy.children = [1.0], [20.0]  # it never learns
    dearest = max(losses)
    assert dearest > 0
    for start in range(0, 3000, 100):
        for end in range(start + 1, 3001, 100):
            stake = max(LEAST_STAKE, STAKE * policy.horizon)
            assert sum(losses[start:end]) <= INCOME * (end - start) + stake + dearest + 1e-6


def test_a_debt_fades_with_the_requests_and_winnings_do_not():
    """Five lost rounds, and answers of 48 tokens: it drafts again after some requests, and not at once."""
    policy = Policy(RowCosts(dict(FORWARD)), max_depth=1)
    policy.balance, requests = -5.0, 0
    while policy.balance < 0:
        policy.begin()
        for _ in range(48):
            policy.settle(1, 1.0)
        requests += 1
    assert 2 <= requests <= 4
    won = policy.balance
    policy.begin()
    assert policy.balance == won > 0


def test_winnings_are_staked_again():
    policy = Policy(RowCosts(dict(FORWARD)), max_depth=1)
    for _ in range(100):
        policy.settle(4, 3.0)
    assert policy.balance == STAKE * policy.horizon


def exact_policy(max_depth: int = 1) -> Policy:
    """Past its warm-up, on a machine whose plain rounds take two seconds and rounds of four rows three."""
    policy = Policy(RowCosts({1: 2.0, 2: 2.2, 4: 3.0}), max_depth)
    policy.plain = WARM_UP
    return policy


def test_a_round_is_settled_in_plain_rounds():
    """Three tokens for 3 + 1 seconds win one plain round, and each token 1 %; a plain round wins that alone."""
    policy = exact_policy()
    policy.observe_draft(1, 1.0)
    policy.settle(4, 3.0)
    assert (policy.balance, policy.allowance) == pytest.approx((LEAST_STAKE + 1.03, 0.03))
    policy.settle(1, 1.0)
    assert (policy.balance, policy.allowance, policy.tokens) == pytest.approx((LEAST_STAKE + 1.04, 0.04, 4.0))


def test_a_request_begins_with_what_the_last_one_says_of_its_length():
    """128 tokens were supposed and 28 came: now 98. What a round spent that no commit followed is not charged."""
    policy = exact_policy()
    for _ in range(28):
        policy.settle(1, 1.0)
    won = policy.balance
    policy.observe_draft(1, 5.0)
    policy.observe_reading(8, 5.0)
    policy.begin()
    assert (policy.horizon, policy.tokens) == pytest.approx((98, 0))
    policy.settle(1, 1.0)
    assert policy.balance == pytest.approx(won + INCOME)


def test_what_a_depth_yields_and_costs():
    """Levels accept 0.8 and half of that, by luck 0.6 in all, for five rows, guessed, and 2.5/1.5 of one level."""
    policy = exact_policy(max_depth=2)
    policy.parents, policy.children, policy.luck = [1.0, 0.8], [0.8, 0.4], 0.5
    policy.observe_draft(1, 0.6)
    assert (policy.drafting(1), policy.drafting(2)) == pytest.approx((0.6, 1.0))
    assert policy.rate(2) == pytest.approx(1.6 / (3.0 + 1.0))
    assert policy.rate(1) == pytest.approx(1.4 / (3.0 + 0.6))


def test_levels_learn_from_the_levels_above():
    policy = exact_policy(max_depth=2)
    policy.learn([0.9, 0.3])
    assert policy.parents == pytest.approx([2 + 0.1 * (1 - 2), 2 + 0.1 * (0.9 - 2)])
    assert policy.children == pytest.approx([1.4 + 0.1 * (0.9 - 1.4), 1.4 + 0.1 * (0.3 - 1.4)])


@pytest.mark.parametrize("accepted, luck, rows", [([0, 0.5, 1.0], 1.0, 3), ([0, 0.5, 1.0], 0.1, 1), ([0, 0.6], 1.0, 2)])
def test_as_many_rows_are_verified_as_pay(accepted, luck, rows):
    """With one second of drafting a round of 1, 2 or 4 rows takes 3, 3.2 or 4 seconds, whatever it accepts."""
    policy = exact_policy()
    policy.observe_draft(1, 1.0)
    policy.luck = luck
    assert policy.choose(accepted, 1) == rows
    assert policy.verifying(1) == policy.costs[rows]
    assert policy.allowance == 0, "no such round is faster than plain decoding"
    policy.luck = 1.0
    policy.choose([0, 1.0, 1.9], 1)
    assert policy.allowance == 1, "2.9 tokens in 4 seconds are: it looks again at once"


def test_a_prompt_tells_what_reading_costs_and_old_ones_fade():
    policy = exact_policy()
    policy.observe_reading(100, 10.0)  # five plain rounds
    assert policy.reading(20) == pytest.approx(1)
    policy.observe_reading(100, 30.0)
    assert policy.reading(190) == pytest.approx(15 + 5 - 0.5)
    assert policy.spent == 40


def test_savings_last_to_the_usual_length_or_as_long_again():
    policy = exact_policy()
    policy.parents, policy.children = [1.0], [1.0]
    for tokens, left in ((28, 100), (100, 100), (200, 200)):
        policy.tokens = tokens
        assert policy.savings(1) == pytest.approx(left * (1 - 3 / 4))


def test_when_it_drafts_and_how_deep():
    """One level pays; every 16th drafting round looks at all of them, and every 32nd is a plain one."""
    policy = exact_policy(max_depth=3)
    policy.parents, policy.children = [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]
    policy.observe_draft(1, 0.1)
    assert [policy.depth(0) for _ in range(32)] == [1] * 15 + [3] + [1] * 15 + [0]
    policy.reading_time, policy.rows_read = 3.0, 1.0
    assert policy.depth(rows_behind=1) == 0, "the balance does not reach for it"
    policy.balance = 3.0
    assert policy.depth(rows_behind=1) == 1


def test_a_probe_waits_until_it_is_saved_for():
    """Drafts that nothing speaks for: three rows, guessed, cost half a plain round more than a plain one."""
    policy = exact_policy()
    policy.children, policy.allowance = [0.0], 0.49
    assert policy.depth(0) == 0
    policy.allowance = 0.5
    assert (policy.depth(0), policy.depth(0)) == (1, 0)


def test_calibration_learns_what_a_probability_is_worth():
    calibration, coin = Calibration(), random.Random(1)
    for _ in range(3000):  # the first claims 95 %, and holds half the time
        calibration.observe([(-0.05, coin.random() < 0.5), (-3.0, coin.random() < 0.05)], 1)
    assert calibration.probability(-0.05) == pytest.approx(0.5, abs=0.1)
    assert calibration.probability(-3.0) == pytest.approx(0.05, abs=0.03)
    assert calibration.probability(-10.0) < 0.01  # nothing was seen there: as claimed


def test_calibration_by_hand():
    """Bands of width 1/16 in the square root: that of 1 is worth (15.5/16)^2 and that of exp(-3) (3.5/16)^2."""
    calibration, likely, rare = Calibration(), (15.5 / 16) ** 2, (3.5 / 16) ** 2
    assert (calibration.probability(0.0), calibration.probability(-3.0)) == pytest.approx((likely, rare))
    calibration.observe([(0.0, True), (-3.0, False)], batch=2)
    assert calibration.luck == pytest.approx((0.5 + 4) / ((likely + rare) / 2 + 4))
    assert calibration.probability(-3.0) == pytest.approx(rare - rare / 9)
    calibration.observe([], batch=2)
    assert calibration.luck == pytest.approx((0.45 + 4) / (0.9 * (likely + rare) / 2 + 4))
    for _ in range(500):
        calibration.observe([(0.0, True)], batch=1)
    before = calibration.probability(0.0)
    calibration.observe([(0.0, False)], batch=1)
    assert calibration.probability(0.0) == pytest.approx(before * (1 - 1 / 400)), "no draft counts less than one in 400"


def test_luck_follows_the_text_and_is_forgotten_by_the_next():
    calibration = Calibration()
    for _ in range(200):
        calibration.observe([(-0.05, True), (-0.05, False)], 1)
    assert calibration.luck == pytest.approx(1, abs=0.05)
    for _ in range(8):
        calibration.observe([(-0.05, False), (-0.05, False)], 1)
    failing = calibration.luck
    assert failing < 0.7
    calibration.begin()
    assert failing < calibration.luck < 1


def test_costs_follow_the_rounds():
    costs = RowCosts({1: 1.0, 4: 2.0, 8: 3.0})
    assert (costs[1], costs[3], costs[4], costs[99]) == (1.0, 2.0, 2.0, 3.0)
    costs.observe(1, 2.0)
    assert (costs[1], costs[4]) == (2.0, 4.0)  # a size that no round used follows
    for seconds in (5.0, 5.0, 50.0, 5.0):  # one of them a stall
        costs.observe(4, seconds)
    assert costs[4] == 5.0 and costs[1] == 2.0
    costs.observe(3, 6.0)  # a round of three rows runs as one of four
    assert costs[4] == 5.0 and costs.recent(4) == [5.0, 5.0, 50.0, 5.0, 6.0]
    costs.observe(8, 1.0)
    assert costs[8] > costs[1]
    for _ in range(STALE):
        costs.observe(1, 1.5)
    assert (costs[1], costs[4]) == (1.5, 3.0)  # what was seen long ago is forgotten


def test_a_round_never_costs_less_than_a_plain_one():
    costs = RowCosts({1: 1.0, 2: 1.1})
    for _ in range(4):
        costs.observe(1, 1.0)
        costs.observe(2, 0.5)
    assert costs[2] == costs[1] == 1.0


def test_costs_are_measured_by_rows():
    target = Target(tiny_target())
    with torch.inference_mode(), target.attached():
        costs = measure(target, batch=2, max_rows=6)
    assert costs.sizes[0] == 1 and set(costs.sizes) <= {1, 2, 3, 4, 5, 6}
    assert all(costs[size] > 0 for size in costs.sizes)


def test_shallower_trees_stay_valid():
    assert shallower(TreeConfig(24, 6, 4), 1) == TreeConfig(5, 1, 4)
    assert shallower(TreeConfig(24, 6, 4), 3) == TreeConfig(24, 3, 4)


def commit(rows: int, start: int) -> Commit:
    index = torch.arange(start, start + rows, dtype=torch.int32)[None]
    length = torch.tensor([start], dtype=torch.int32)
    count = torch.tensor([rows], dtype=torch.int32)
    return Commit(index + 50, index[..., None].float(), index, length, count, committed=start + rows)


def test_plain_rounds_are_joined():
    merged = list(joined([commit(5, 0), commit(1, 5), commit(1, 6), commit(1, 7), commit(2, 8)]))
    assert [c.tokens.shape[1] for c in merged] == [5, 3, 2]
    assert merged[1].tokens.tolist() == [[55, 56, 57]]
    assert (merged[1].context_len.item(), merged[1].num_rows.item(), merged[1].committed) == (5, 3, 8)


class EveryThird(AutoDraft):
    """Drafts in every third round, whatever it would pay."""

    def propose(self, root_tokens, context_len):
        self.turn = getattr(self, "turn", 0) + 1
        self.policy.depth = lambda rows_behind: 3 if self.turn % 3 == 0 else 0
        self.policy.choose = lambda accepted, depth: len(accepted)
        return super().propose(root_tokens, context_len)


@pytest.mark.parametrize("batch", [1, 3])
def test_plain_rounds_keep_the_head_informed(batch):
    """The tree that the head grows after plain rounds is the one it grows when it saw each round at once."""
    target = tiny_target()
    inputs, greedy = prompts(batch), {"do_sample": False, "max_new_tokens": 30, "eos_token_id": None}
    tree = TreeConfig(num_nodes=8, max_depth=3, topk=2)
    torch.manual_seed(0)
    always = eagle_decoder(target, tree)
    seen = {}
    propose = always.draft.propose

    def noting(root_tokens, context_len):
        drafted = propose(root_tokens, context_len)
        for b, length in enumerate(context_len.tolist()):
            seen[b, length] = sorted(zip(drafted.draft_tokens[b].tolist(), drafted.depth[b].tolist(), strict=True))
        return drafted

    always.draft.propose = noting
    expected = always.generate(**inputs, **greedy)
    torch.manual_seed(0)  # the same random head
    sometimes = SpeculativeDecoder(target, EveryThird(eagle_decoder(target, tree).draft, 8, target))
    compared = 0
    draft, inner = sometimes.draft, sometimes.draft.draft.propose

    def comparing(root_tokens, context_len):
        nonlocal compared
        drafted = inner(root_tokens, context_len)
        for b, length in enumerate(context_len.tolist()):
            if (b, length) in seen:
                nodes = sorted(zip(drafted.draft_tokens[b].tolist(), drafted.depth[b].tolist(), strict=True))
                assert nodes == seen[b, length]
                compared += 1
        return drafted

    draft.draft.propose = comparing
    assert torch.equal(sometimes.generate(**inputs, **greedy), expected)
    assert compared >= 5


@pytest.mark.parametrize("spec", ["auto:suffix", "auto:prompt-lookup"])
def test_it_is_loaded_by_name(spec):
    target = tiny_target()
    decoder = SpeculativeDecoder.from_pretrained(target, spec)
    inputs, greedy = prompts(1), {"do_sample": False, "max_new_tokens": 30}
    assert torch.equal(decoder.generate(**inputs, **greedy), target.generate(**inputs, **greedy))


def test_lookahead_cannot_be_ranked():
    with pytest.raises(ValueError, match="auto:lookahead cannot rank its drafts"):
        load_draft("auto:lookahead", tiny_target())
