"""How much of a round the device is idle, from torch.profiler's timeline of kernels and copies over replayed rounds."""

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity, profile

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a trace's events


class Activity(NamedTuple):
    """What the device did between two times, in microseconds, for one launch: a graph's nodes share theirs."""

    start: float
    end: float
    launch: int


def profiled(call: Callable[[], object], activity: ProfilerActivity, trace: Path) -> None:
    """Runs a call under the profiler; its timeline goes to `trace` (.json.gz), for Chrome's or Perfetto's viewer."""
    trace.parent.mkdir(parents=True, exist_ok=True)
    # Between two profiles of one process CUPTI stays up: with CUDA graphs around, its second start has crashed.
    os.environ |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}
    with profile(activities=[activity]) as profiler:
        call()
    profiler.export_chrome_trace(str(trace))


def read_activities(trace: Path) -> list[Activity]:
    return [
        Activity(event["ts"], event["ts"] + event["dur"], event["args"]["correlation"])
        for event in read_events(trace)
        if event.get("cat") in ON_DEVICE
    ]


def read_kernels(trace: Path) -> list[str]:
    """Names of the kernels that ran, each once, in the order in which they first began."""
    kernels = [event for event in read_events(trace) if event.get("cat") == "kernel"]
    return list(dict.fromkeys(event["name"] for event in sorted(kernels, key=lambda event: event["ts"])))


def read_events(trace: Path) -> list[dict[str, Any]]:
    with gzip.open(trace, "rt") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def idle_shares(activities: Iterable[Activity]) -> dict[str, Any]:
    """Shares of replayed rounds in which nothing ran, from the beginning of the first replay to that of the last.

    rounds:     replays that another one followed
    host_gaps:  between the end of a replay and the beginning of the next: the host's doing
    inner_gaps: between the kernels of a replay: the device's own pace, slower under the profiler
    None for both where no launch has more than one activity, as without graphs.
    """
    by_launch: dict[int, list[Activity]] = defaultdict(list)
    for activity in activities:
        by_launch[activity.launch].append(activity)
    replays = sorted(sorted(nodes) for nodes in by_launch.values() if len(nodes) > 1)
    if len(replays) < 2:
        return {"rounds": 0, "host_gaps": None, "inner_gaps": None}
    whole = replays[-1][0].start - replays[0][0].start
    between = sum(max(0.0, after[0].start - last_end(before)) for before, after in pairwise(replays))
    inside = sum(idle_inside(nodes) for nodes in replays[:-1])
    return {
        "rounds": len(replays) - 1,
        "round_seconds": whole / (len(replays) - 1) / 1e6,
        "host_gaps": between / whole,
        "inner_gaps": inside / whole,
    }


def last_end(nodes: list[Activity]) -> float:
    return max(node.end for node in nodes)


def idle_inside(nodes: list[Activity]) -> float:
    """Microseconds between the first beginning and the last end in which none of the nodes ran; sorted by start."""
    idle, busy_until = 0.0, nodes[0].end
    for node in nodes[1:]:
        idle += max(0.0, node.start - busy_until)
        busy_until = max(busy_until, node.end)
    return idle
