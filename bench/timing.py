"""Times rivals in turns, warm and with cold caches: on a CPU by the clock, on a GPU by events around graph replays.

A call that no graph can hold, because the host takes part in it, is timed with its launches.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from eagle_decoding.floor.ceilings import hold
from eagle_decoding.graph import cuda_graph

Call = Callable[[], object]
Mark = Any  # a reading of the host's clock, on a GPU an event
FLUSH_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}  # more than the second-level caches of all cores, of the GPU
SAMPLE_SECONDS = 1e-3  # short calls are repeated until a sample takes about this long
SLOWEST = 0.2  # seconds: what one call may take to be sampled more than once


@dataclass
class Samples:
    """Seconds a call took, in the order of the run."""

    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)

    @property
    def too_slow(self) -> bool:
        """Whether one sample is enough: SLOWEST or more, far behind whatever it is compared with."""
        return bool(self.warm) and self.warm[0] >= SLOWEST


class Stopwatch:
    """Seconds of one call on one device."""

    def __init__(self, device: str):
        self.device = device
        self.flushed = torch.zeros(FLUSH_BYTES[device], dtype=torch.uint8, device=device)

    def prepare(self, call: Call) -> tuple[Call, Exception | None]:
        """What is to be timed: on a GPU a graph of the call, or the call itself and why it could not be captured."""
        if self.device == "cpu":
            return call, None
        call()
        try:
            return cuda_graph(call, torch.device(self.device, torch.cuda.current_device())), None
        except Exception as error:
            return call, error

    def seconds(self, call: Call, times: int) -> float:
        """Mean over `times` calls one after another."""
        if self.device == "cuda":
            hold()
        start = self.mark()
        for _ in range(times):
            call()
        return self.between(start, self.mark()) / times

    def mark(self) -> Mark:
        """A moment of the device's work: what was handed to it so far has ended, nothing later has begun."""
        if self.device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Mark, end: Mark) -> float:
        """Seconds from one moment to another; waits for the later one."""
        if self.device == "cpu":
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def flush(self) -> None:
        """Writes through a buffer larger than the caches below the shared ones, with all threads."""
        self.flushed.add_(1)


def sample_in_turns(rivals: Mapping[str, Call], watch: Stopwatch, repeats: int) -> dict[str, Samples]:
    """Warm and cold samples of each rival; a repeat goes through all rivals, so that drift meets every one.

    A rival that needs SLOWEST seconds or more is sampled once, and its cold samples are the warm ones: such a call
    leaves nothing of its inputs in the caches anyway.
    """
    calls = {name: watch.prepare(call)[0] for name, call in rivals.items()}
    once = {name: watch.seconds(call, 1) for name, call in calls.items()}
    once |= {name: watch.seconds(calls[name], 1) for name, first in once.items() if first < SLOWEST}
    samples = {name: Samples() for name in calls}
    for repeat in range(repeats):
        for name, call in calls.items():
            if once[name] >= SLOWEST:
                if repeat == 0:
                    samples[name].warm.append(once[name])
                continue
            times = max(1, min(1000, round(SAMPLE_SECONDS / max(once[name], 1e-7))))
            samples[name].warm.append(watch.seconds(call, times))
            watch.flush()
            samples[name].cold.append(watch.seconds(call, 1))
    for sample in samples.values():
        sample.cold = sample.cold or list(sample.warm)
    return samples
