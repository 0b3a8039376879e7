"""The arithmetic of auto mode: what a round costs, what it is expected to yield, and what may be lost on it."""

from collections import deque
from statistics import median

from eagle_decoding.drafts.costs import RECENT, RowCosts

PROBE_DEPTH = 2
INCOME = 0.01  # of the time of plain decoding: what drafting may lose in the long run
STAKE = 0.05  # of a request's usual time: what it may lose at once
LEAST_STAKE = 2.0  # plain rounds; also what it may lose at the very start
REMEMBERED = 0.5  # of a debt, by the next request: its text may suit the method better
FULL_DEPTH_EVERY = 16  # drafting rounds: looks deeper than it pays now, lest that has changed
PLAIN_EVERY = 32  # drafting rounds: what plain decoding costs changes with the context and the machine
WARM_UP = 2  # plain rounds at the very start, to know what one costs
HORIZON = 128.0  # tokens that a request is taken to have before any was seen to its end
MARGIN = 1.02  # expected speed over plain decoding from which drafting is worth its risk
PROMPT_MARGIN = 2.0  # expected savings over the cost of reading the prompt from which that is worth its risk
LENGTH_MEMORY = 0.3  # weight of a new request's length
MEMORY = 0.1  # weight of a new round, of a new prompt
FIRST_GUESS = 0.7  # of the accepted drafts of a level, how many have an accepted child


class Policy:
    """Maximises expected tokens per second, (1 + accepted drafts) / (verification + drafting), on a limited budget.

    The balance says how many plain rounds' worth of time may still be lost. Every token adds INCOME to it. A drafting
    round adds the tokens that it emitted and takes its own time and that of the rows the method had to read first, in
    plain rounds. Below zero nothing is drafted; winnings are kept up to STAKE of a request's usual length. So in any
    stretch of n tokens of a request, whatever the text and the method, the time is at most that of

        n + INCOME * n + max(LEAST_STAKE, STAKE * length) + one drafting round

    plain rounds. A debt is halved where a request begins, lest one dear round keep the method from a dozen texts.
    Times are medians of what was measured; the bound is as good as they are.

    costs:     of verification, by rows
    max_depth: deepest tree that may be drafted; 1 for methods whose drafting costs no time by depth
    luck:      what to multiply expected acceptance by, for the text at hand
    """

    def __init__(self, costs: RowCosts, max_depth: int):
        self.costs, self.max_depth = costs, max_depth
        self.draft_times: dict[int, deque[float]] = {}
        self.reading_time, self.rows_read = 0.0, 0.0  # of what the method had not taken in; old ones fade
        self.parents, self.children = [2.0] * max_depth, [2.0 * FIRST_GUESS] * max_depth
        self.verified_rows: dict[int, int] = {}
        self.drafts, self.plain = 0, 0
        self.balance, self.allowance = LEAST_STAKE, 0.0  # plain rounds; of the balance, what probes may lose
        self.spent = 0.0  # seconds of drafting in the round under way
        self.horizon, self.tokens = HORIZON, 0.0
        self.luck = 1.0

    def begin(self) -> None:
        """A new request starts: what the last one's length was tells how long this one will be."""
        if self.tokens:
            self.horizon += LENGTH_MEMORY * (self.tokens - self.horizon)
        self.tokens, self.spent = 0.0, 0.0
        self.balance = max(self.balance, REMEMBERED * self.balance)

    def depth(self, rows_behind: int) -> int:
        """How deep to draft this round, 0 for not at all.

        rows_behind: committed rows that the method would have to take in first
        """
        if self.plain < WARM_UP:
            self.plain += 1
            return 0
        best = max(range(1, self.max_depth + 1), key=self.rate)
        reading = self.reading(rows_behind)
        if self.balance < reading:
            return 0
        if self.rate(best) > MARGIN / self.costs[1] and self.savings(best) > PROMPT_MARGIN * reading:
            self.drafts += 1
            if self.drafts % PLAIN_EVERY == 0:
                return 0
            return self.max_depth if self.drafts % FULL_DEPTH_EVERY == 0 else best
        probe = min(PROBE_DEPTH, self.max_depth)
        if self.allowance < reading + (self.drafting(probe) + self.verifying(probe)) / self.costs[1] - 1:
            return 0
        self.allowance = 0.0
        return probe

    def settle(self, rows: int, emitted: float) -> None:
        """Takes in a round: the rows that it verified, and the tokens that it emitted, the mean over requests."""
        self.tokens += emitted
        self.allowance += INCOME * emitted
        gain = emitted - (self.costs[rows] + self.spent) / self.costs[1]
        self.balance = min(self.balance + INCOME * emitted + gain, max(LEAST_STAKE, STAKE * self.horizon))
        self.spent = 0.0

    def savings(self, depth: int) -> float:
        """Plain rounds that drafting saves until the request ends: at its usual length, or after as much again."""
        left = max(self.horizon - self.tokens, self.tokens)
        return left * (1 - 1 / (self.rate(depth) * self.costs[1]))

    def rate(self, depth: int) -> float:
        """Expected tokens per second of rounds with trees of a depth."""
        accepted, reached = 0.0, 1.0
        for parents, children in list(zip(self.parents, self.children, strict=True))[:depth]:
            reached *= children / parents
            accepted += reached
        return (1 + self.luck * accepted) / (self.verifying(depth) + self.drafting(depth))

    def verifying(self, depth: int) -> float:
        """Seconds of the verification that trees of a depth led to last."""
        return self.costs[self.verified_rows.get(depth, 1 + 2 * depth)]

    def drafting(self, depth: int) -> float:
        """Seconds of drafting; a depth not tried yet takes in proportion to the nearest that was, free before any."""
        if not self.draft_times:
            return 0.0
        near = min(self.draft_times, key=lambda tried: abs(tried - depth))
        return median(self.draft_times[near]) * (depth + 0.5) / (near + 0.5)

    def reading(self, rows: int) -> float:
        """Plain rounds in whose time the method takes in committed rows, those of the prompt for example."""
        return rows * self.reading_time / self.rows_read if self.rows_read else 0.0

    def choose(self, accepted: list[float], depth: int) -> int:
        """How many rows to verify of a tree that was drafted.

        accepted: entry n-1: expected accepted drafts of the best n rows, the root included
        """
        drafting = self.drafting(depth)

        def rate(rows: int) -> float:
            return (1 + self.luck * accepted[min(rows, len(accepted)) - 1]) / (self.costs[rows] + drafting)

        rows = max(self.costs.sizes, key=rate)
        self.verified_rows[depth] = rows
        if rate(rows) > MARGIN / self.costs[1]:
            self.allowance = max(self.allowance, 1.0)  # a good round: look again at once
        return min(rows, len(accepted))

    def learn(self, levels: list[float]) -> None:
        """levels: expected accepted drafts of the chosen rows at each depth from 1 on."""
        above = 1.0
        for level, accepted in enumerate(levels):
            self.parents[level] += MEMORY * (above - self.parents[level])
            self.children[level] += MEMORY * (accepted - self.children[level])
            above = accepted

    def observe_draft(self, depth: int, seconds: float) -> None:
        self.draft_times.setdefault(depth, deque(maxlen=RECENT)).append(seconds)
        self.spent += self.drafting(depth)

    def observe_reading(self, rows: int, seconds: float) -> None:
        """Takes in what it cost the method to catch up on rows; they count by their number, so that prompts tell."""
        self.reading_time += seconds / self.costs[1] - MEMORY * self.reading_time
        self.rows_read += rows - MEMORY * self.rows_read
        self.spent += seconds
