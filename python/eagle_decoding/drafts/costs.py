"""What a forward of the target costs by its number of rows: measured at the start, kept true by the rounds."""

import time

import torch

from eagle_decoding.target import Target
from eagle_decoding.tree import DraftTree

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128)
CONTEXT = 128  # committed rows during the measurement
REPEATS = 3
TOO_DEAR = 4  # forwards that cost more than this many one-row forwards are not looked at
MEMORY = 0.1  # weight of a new round
DRIFT = 0.25  # the same for what all sizes share


class RowCosts:
    """Seconds of a round's verification by rows per request.

    forward: seconds of a bare forward by number of rows, ascending
    """

    def __init__(self, forward: dict[int, float]):
        self.forward = forward
        self.slowdown: dict[int, float] = {}  # of rounds of a size, against the bare forward

    @property
    def sizes(self) -> list[int]:
        return list(self.forward)

    def __getitem__(self, rows: int) -> float:
        """Seconds of a round; sizes that no round has used are slowed down as the others were on the mean."""
        used = self.size(rows)
        known = self.slowdown.values()
        return self.forward[used] * self.slowdown.get(used, sum(known) / len(known) if known else 1.0)

    def size(self, rows: int) -> int:
        """The smallest size that was measured and holds `rows`, else the largest."""
        return min((size for size in self.forward if size >= rows), default=max(self.forward))

    def observe(self, rows: int, seconds: float) -> None:
        """Takes in the time of a round; most of a change is the context's or the machine's, so all sizes follow."""
        used = self.size(rows)
        if used not in self.slowdown:
            self.slowdown[used] = seconds / self.forward[used]
            return
        change = min(seconds / self[used], 3.0) - 1
        for size in self.slowdown:
            self.slowdown[size] *= 1 + DRIFT * change
        self.slowdown[used] *= 1 + MEMORY * change


def faded(old: float | None, new: float) -> float:
    """A running mean that starts with the first value and heeds no stall beyond thrice the mean."""
    return new if old is None else old + MEMORY * (min(new, 3 * old) - old)


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
        seconds[rows] = max(min(times[1:]), seconds.get(rows, 0.0))
        if seconds[rows] > TOO_DEAR * seconds[1]:
            break
    return RowCosts(seconds)


def chain(rows: int, context_len: torch.Tensor) -> DraftTree:
    """A chain of token 0 for every request."""
    device = context_len.device
    depth = torch.arange(rows, dtype=torch.int32, device=device).expand(len(context_len), -1).contiguous()
    words = -(-rows // 64)
    bits = torch.arange(64 * words, device=device) <= depth[0][:, None]
    masks = (bits.unflatten(-1, (words, 64)).long() << torch.arange(64, device=device)).sum(-1)
    return DraftTree(
        draft_tokens=torch.zeros_like(depth),
        parent=depth - 1,
        depth=depth,
        position_ids=context_len[:, None] + depth,
        ancestor_mask=masks.repeat(len(context_len), 1, 1),
        node_scores=None,
        max_depth=rows - 1,
    )
