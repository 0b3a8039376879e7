"""The arithmetic of auto mode: what a round costs, what it is expected to yield, and what follows from that."""

from eagle_decoding.drafts.costs import MEMORY, RowCosts, faded

PROBE_DEPTH = 2
PROBE_SHARE = 0.01  # of the time of plain rounds: what finding out whether drafting pays again may cost
FULL_DEPTH_EVERY = 16  # drafting rounds: looks deeper than it pays now, lest that has changed
PLAIN_EVERY = 64  # drafting rounds: what plain decoding costs changes with the context
WARM_UP = 2  # plain rounds at the very start, to know what one costs
HORIZON = 128.0  # tokens that a request is taken to have before any was seen to its end
MARGIN = 1.02  # expected speed over plain decoding from which drafting is worth its risk
LENGTH_MEMORY = 0.3  # weight of a new request's length
FIRST_GUESS = 0.7  # of the accepted drafts of a level, how many have an accepted child


class Policy:
    """Maximises expected tokens per second: (1 + accepted drafts) / (verification + drafting), round by round.

    costs:     of verification, by rows
    max_depth: deepest tree that may be drafted; 1 for methods whose drafting costs no time by depth
    """

    def __init__(self, costs: RowCosts, max_depth: int):
        self.costs, self.max_depth = costs, max_depth
        self.draft_seconds: dict[int, float] = {}
        self.catch_up_seconds = 0.0  # per committed row that the method has not taken in
        self.parents, self.children = [2.0] * max_depth, [2.0 * FIRST_GUESS] * max_depth
        self.verified_rows: dict[int, int] = {}
        self.allowance, self.drafts, self.plain = 0.0, 0, 0
        self.horizon, self.tokens = HORIZON, 0

    def begin(self) -> None:
        """A new request starts: what the last one's length was tells how long this one will be."""
        if self.tokens:
            self.horizon += LENGTH_MEMORY * (self.tokens - self.horizon)
        self.tokens = 0

    def depth(self, rows_behind: int) -> int:
        """How deep to draft this round, 0 for not at all.

        rows_behind: committed rows that the method would have to take in first
        """
        best = max(range(1, self.max_depth + 1), key=self.rate)
        behind = rows_behind * self.catch_up_seconds
        if self.plain < WARM_UP:
            self.plain += 1
            return 0
        if self.rate(best) > MARGIN / self.costs[1] and self.savings(best) > behind:
            self.drafts += 1
            if self.drafts % PLAIN_EVERY == 0:
                return 0
            return self.max_depth if self.drafts % FULL_DEPTH_EVERY == 0 else best
        self.allowance += PROBE_SHARE * self.costs[1]
        probe = min(PROBE_DEPTH, self.max_depth)
        if self.allowance < behind + self.drafting(probe) + self.verifying(probe) - self.costs[1]:
            return 0
        self.allowance = 0.0
        return probe

    def savings(self, depth: int) -> float:
        """Seconds that drafting saves until the request ends: at its usual length, or after as much again."""
        left = max(self.horizon - self.tokens, self.tokens)
        return left * (self.costs[1] - 1 / self.rate(depth))

    def rate(self, depth: int) -> float:
        """Expected tokens per second of rounds with trees of a depth."""
        accepted, reached = 0.0, 1.0
        for parents, children in list(zip(self.parents, self.children, strict=True))[:depth]:
            reached *= children / parents
            accepted += reached
        return (1 + accepted) / (self.verifying(depth) + self.drafting(depth))

    def verifying(self, depth: int) -> float:
        """Seconds of the verification that trees of a depth led to last."""
        return self.costs[self.verified_rows.get(depth, 1 + 2 * depth)]

    def drafting(self, depth: int) -> float:
        """Seconds of drafting; a depth not tried yet takes in proportion to the nearest that was, free before any."""
        if not self.draft_seconds:
            return 0.0
        near = min(self.draft_seconds, key=lambda tried: abs(tried - depth))
        return self.draft_seconds[near] * (depth + 0.5) / (near + 0.5)

    def choose(self, accepted: list[float], depth: int) -> int:
        """How many rows to verify of a tree that was drafted.

        accepted: entry n-1: expected accepted drafts of the best n rows, the root included
        """
        drafting = self.drafting(depth)

        def rate(rows: int) -> float:
            return (1 + accepted[min(rows, len(accepted)) - 1]) / (self.costs[rows] + drafting)

        rows = max(self.costs.sizes, key=rate)
        self.verified_rows[depth] = rows
        if rate(rows) > MARGIN / self.costs[1]:
            self.allowance = max(self.allowance, self.costs[1])  # a good round: look again at once
        return min(rows, len(accepted))

    def learn(self, depth: int, levels: list[float]) -> None:
        """levels: expected accepted drafts of the chosen rows at each depth from 1 on."""
        above = 1.0
        for level, accepted in enumerate(levels[:depth]):
            self.parents[level] += MEMORY * (above - self.parents[level])
            self.children[level] += MEMORY * (accepted - self.children[level])
            above = accepted

    def observe_draft(self, depth: int, seconds: float) -> None:
        self.draft_seconds[depth] = faded(self.draft_seconds.get(depth), seconds)

    def observe_catch_up(self, rows: int, seconds: float) -> None:
        self.catch_up_seconds = faded(self.catch_up_seconds or None, seconds / rows)
