"""What a forward of the target costs by its number of rows: measured at the start, kept true by the rounds."""

import time
from collections import deque
from statistics import median

import torch

from eagle_decoding.target import Target
from eagle_decoding.tree import DraftTree, causal_words

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128)
CONTEXT = 128  # committed rows during the measurement
REPEATS = 3
TOO_DEAR = 4  # forwards that cost more than this many one-row forwards are not looked at
RECENT = 5  # times of one kind whose median is believed: a stall of the machine moves it little
STALE = 64  # rounds after which a time is forgotten: contexts grow, and other programs come and go


class RowCosts:
    """Seconds of a round's verification by rows per request: medians of recent rounds, guesses where there are none.

    forward: seconds of a bare forward by number of rows, ascending
    """

    def __init__(self, forward: dict[int, float]):
        self.forward = forward
        self.rounds = 0
        self.times: dict[int, deque[tuple[int, float]]] = {}  # size -> (round, seconds)
        self.seconds = dict(forward)

    @property
    def sizes(self) -> list[int]:
        return list(self.forward)

    def __getitem__(self, rows: int) -> float:
        """Seconds of a round, never less than those of a plain one."""
        return max(self.seconds[1], self.seconds[self.size(rows)])

    def size(self, rows: int) -> int:
        """The smallest size that was measured and holds `rows`, else the largest."""
        return min((size for size in self.forward if size >= rows), default=max(self.forward))

    def observe(self, rows: int, seconds: float) -> None:
        """Takes in the time of a round.

        A guess, from the bare forward and slowed down as plain rounds are, counts as one more time of each larger size.
        """
        self.rounds += 1
        self.times.setdefault(self.size(rows), deque(maxlen=RECENT)).append((self.rounds, seconds))
        plain = median(self.recent(1) or [self.seconds[1]])
        guesses = {size: bare * plain / self.forward[1] for size, bare in self.forward.items()}
        self.seconds = {size: median([*self.recent(size), guess]) for size, guess in guesses.items()} | {1: plain}

    def recent(self, size: int) -> list[float]:
        return [seconds for when, seconds in self.times.get(size, ()) if when > self.rounds - STALE]


def measure(target: Target, batch: int, max_rows: int) -> RowCosts:
    """Times forwards of chains behind a short context, the best of a few repeats each.

    max_rows: the most rows a tree may have
    """
    cache = target.new_cache(batch)
    cache.buffer.reserve(CONTEXT + max_rows)
    cache.buffer.data.zero_()
    device = cache.buffer.data.device
    context_len = torch.full((batch,), CONTEXT, dtype=torch.int32, device=device)
    seconds: dict[int, float] = {}
    for rows in (size for size in SIZES if size <= max_rows):
        tree = chain(rows, context_len)
        times = []
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            target.verify(tree, context_len, cache)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        seconds[rows] = min(times[1:])
        if seconds[rows] > TOO_DEAR * seconds[1]:
            break
    return RowCosts(seconds)


def chain(rows: int, context_len: torch.Tensor) -> DraftTree:
    """A chain of token 0 for every request."""
    device = context_len.device
    depth = torch.arange(rows, dtype=torch.int32, device=device).expand(len(context_len), -1).contiguous()
    return DraftTree(
        draft_tokens=torch.zeros_like(depth),
        parent=depth - 1,
        depth=depth,
        position_ids=context_len[:, None] + depth,
        ancestor_mask=causal_words(rows, device).repeat(len(context_len), 1, 1),
        node_scores=None,
        max_depth=rows - 1,
    )
