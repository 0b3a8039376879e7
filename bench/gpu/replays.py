"""When replays of a captured round began and ended on the device, marked between them and read after the call."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.gpu.rows import failed_capture
from bench.timing import Mark, Stopwatch
from eagle_decoding import graph


@dataclass
class Replays:
    """Beginning and end of each replay, in order; `failed` holds a row's entries where rounds could not be captured."""

    watch: Stopwatch
    marks: list[tuple[Mark, Mark]] = field(default_factory=list)
    failed: dict[str, Any] = field(default_factory=dict)

    def round_seconds(self) -> float:
        """Median from one replay's beginning to the next one's: what a round takes, the host's part included."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        return statistics.median(self.watch.between(before[0], after[0]) for before, after in pairs)

    def device_seconds(self) -> float:
        """Median from a replay's beginning to its end: what the device needs for a round."""
        return statistics.median(self.watch.between(*both) for both in self.marks)


@contextmanager
def marked_replays(watch: Stopwatch) -> Iterator[Replays]:
    """Notes every replay of captured rounds. On a CPU rounds go through the same code and are what they are."""
    stock = graph.CAPTURES.get(watch.device)
    replays = Replays(watch)

    def capture(step: graph.Step, device: torch.device) -> graph.Step:
        try:
            replay = stock(step, device) if stock else step
        except Exception as error:
            replays.failed = failed_capture(error)
            raise

        def marked() -> None:
            start = watch.mark()
            replay()
            replays.marks.append((start, watch.mark()))

        return marked

    graph.CAPTURES[watch.device] = capture
    try:
        yield replays
    finally:
        del graph.CAPTURES[watch.device]
        if stock is not None:
            graph.CAPTURES[watch.device] = stock
