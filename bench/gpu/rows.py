"""Rows of the report: what a call takes, the least that its bytes and its operations allow, and what rivals take."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.timing import Call, Stopwatch
from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.floor.work import Work
from eagle_decoding.numerics.cases import Maker

CACHED_BYTES = 256 << 20  # inputs in turn exceed this, so that none is found in the second-level cache
WARM_UP, MOST_SAMPLES, SAMPLING_SECONDS = 3, 20, 0.5
T = TypeVar("T")


class DeviceMaker(Maker):
    """Draws on the device itself: what is only timed need not be the same on every device."""

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype) * scale


def copied(value: T) -> T:
    """The same value with every tensor in memory of its own and in the same layout."""
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device).copy_(value)


def in_turn(call: Callable[..., object], sets: Iterable[Sequence[Any]]) -> list[Call]:
    """One call for each set of arguments."""
    return [lambda arguments=arguments: call(*arguments) for arguments in sets]


def sets_of(arguments: Sequence[Any], num_bytes: float) -> list[Sequence[Any]]:
    """The arguments and as many copies of them as no cache holds all of; num_bytes: what a call reads of each."""
    return [arguments, *(copied(arguments) for _ in range(max(1, -(-CACHED_BYTES // int(num_bytes)) - 1)))]


def timed(calls: Sequence[Call], watch: Stopwatch) -> dict[str, Any]:
    """Median `seconds` of one of the calls; whether they ran from a graph (`captured`), on a GPU also why not."""

    def all_of_them() -> None:
        for call in calls:
            call()

    prepared, error = watch.prepare(all_of_them)
    first = [watch.seconds(prepared, 1) for _ in range(WARM_UP)]
    samples = max(3, min(MOST_SAMPLES, int(SAMPLING_SECONDS / first[-1])))
    seconds = statistics.median(watch.seconds(prepared, 1) for _ in range(samples)) / len(calls)
    captured = {"captured": watch.device == "cuda"} if error is None else failed_capture(error)
    return {"seconds": seconds, **captured}


class Rows:
    """Collects what was measured; prints each row as it comes.

    A row has the time of a call (`seconds`), the `bytes` and `flops` that it cannot do without, the time that each of
    them takes at the measured ceilings, their larger one as the floor, and `times_floor`.
    """

    def __init__(self, watch: Stopwatch, ceilings: Ceilings):
        self.watch, self.ceilings = watch, ceilings
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        calls: Sequence[Call],
        work: Work,
        rivals: Mapping[str, Callable[[], Sequence[Call]]],
        **about: Any,
    ) -> None:
        """Times our calls, then each rival's.

        rivals: makes a rival's calls; what it raises becomes the rival's entry, so that no rival ends the run
        about:  what tells this row from others of its name
        """
        ours = timed(calls, self.watch)
        by_bytes, by_flops = self.ceilings.floor(work.bytes, 0), self.ceilings.floor(0, work.flops)
        row = {
            "name": name,
            **about,
            **ours,
            "bytes": work.bytes,
            "flops": work.flops,
            "bytes_seconds": by_bytes,
            "flops_seconds": by_flops,
            "floor_seconds": max(by_bytes, by_flops),
            "times_floor": ours["seconds"] / max(by_bytes, by_flops),
            "share_of_bandwidth": by_bytes / ours["seconds"],
            "rivals": {rival: self.rival(make, calls) for rival, make in rivals.items()},
        }
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def failed(self, error: Exception) -> None:
        """A row for what could not be measured."""
        self.rows.append({"error": first_line(error)})
        print(json.dumps(self.rows[-1]), flush=True)

    def rival(self, make: Callable[[], Sequence[Call]], ours: Sequence[Call]) -> dict[str, Any]:
        """The rival's time, and how far its result is from ours where both give floats."""
        try:
            calls = make()
            return difference(ours[0](), calls[0]()) | timed(calls, self.watch)
        except Exception as error:
            return {"error": first_line(error)}
        finally:
            if self.watch.device == "cuda":
                torch.cuda.empty_cache()


def failed_capture(error: Exception) -> dict[str, Any]:
    """Entries of a row; what the call raised says more than that the capture ended broken."""
    return {"captured": False, "capture_error": first_line(error.__context__ or error)}


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def difference(ours: object, theirs: object) -> dict[str, float]:
    """The norm of the difference over that of ours, of the first tensor of each; nothing where these hold integers."""
    ours, theirs = (value[0] if isinstance(value, tuple) else value for value in (ours, theirs))
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor) and ours.is_floating_point()):
        return {}
    ours, theirs = ours.float(), theirs.float()
    return {"difference": float((ours - theirs).norm() / ours.norm())}
