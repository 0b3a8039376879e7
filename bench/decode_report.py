"""Decoding results as tables: speed, the papers' metrics with their definitions, phases of a round, acceptance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.metrics import DEFINITIONS, acceptance_rates, average_acceptance_length
from bench.rounds import Acceptance

PHASES = ("draft", "verify", "sample", "commit", "host")
Lines = list[list[str]]


@dataclass(frozen=True)
class Total:
    """An arm over files: sums of its measurements."""

    prompts: int
    tokens: int
    seconds: float
    prefill_seconds: float
    rounds: int
    phases: dict[str, float]
    acceptance: Acceptance

    @property
    def capture_seconds(self) -> float:
        """Of `seconds`, what went into making graphs."""
        return self.phases.get("capture", 0.0)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def replayed_tokens_per_second(self) -> float:
        """Without the making of graphs."""
        replaying = self.seconds - self.capture_seconds
        return self.tokens / replaying if replaying else 0.0

    def per_round(self) -> dict[str, float]:
        """Seconds of a round by phase; host is what the clock saw beside the four phases that compute.

        Empty without rounds, and for rounds that ran as a graph, which nobody sees the phases of.
        """
        if not self.rounds or "launch" in self.phases:
            return {}
        computing = {phase: self.phases.get(phase, 0.0) for phase in PHASES[:-1]}
        computing["host"] = max(0.0, self.seconds - sum(computing.values()))
        return {phase: seconds / self.rounds for phase, seconds in computing.items()}


def total(measurements: Sequence[dict[str, Any]]) -> Total:
    phases: Counter[str] = Counter()
    acceptance = Acceptance()
    for m in measurements:
        phases.update(m["phases"])
        merge(acceptance, m["acceptance"])
    sums = {
        name: sum(m[name] for m in measurements)
        for name in ("prompts", "tokens", "seconds", "prefill_seconds", "rounds")
    }
    return Total(**sums, phases=dict(phases), acceptance=acceptance)


def merge(into: Acceptance, counted: dict[str, Any]) -> None:
    """Adds counts as they lie in a file, where ranks are strings."""
    into.rounds += counted["rounds"]
    for depth, (tested, accepted) in enumerate(zip(counted["tested"], counted["accepted"], strict=True)):
        if depth == len(into.tested):
            into.tested.append(0)
            into.accepted.append({})
        into.tested[depth] += tested
        for rank, count in accepted.items():
            into.accepted[depth][int(rank)] = into.accepted[depth].get(int(rank), 0) + count


def totals(result: dict[str, Any]) -> dict[str, Total]:
    """By arm, over all files."""
    arms = dict.fromkeys(arm for by_arm in result["files"].values() for arm in by_arm)
    return {arm: total([by_arm[arm] for by_arm in result["files"].values()]) for arm in arms}


def speed_lines(result: dict[str, Any]) -> tuple[list[str], Lines]:
    """Tokens per second of every arm, by file and over all of them."""
    arms = list(totals(result))
    lines = []
    for name, by_arm in result["files"].items():
        lines.append([name, *(f"{total([by_arm[arm]]).tokens_per_second:.2f}" for arm in arms)])
    whole = totals(result).values()
    lines.append(["all", *(f"{t.tokens_per_second:.2f}" for t in whole)])
    if any(t.capture_seconds for t in whole):
        lines.append(["all, without captures", *(f"{t.replayed_tokens_per_second:.2f}" for t in whole)])
    return ["file", *arms], lines


def metric_lines(result: dict[str, Any]) -> tuple[list[str], Lines]:
    """Speed-up ratio over each baseline, tau, n-alpha of chains."""
    by_arm = totals(result)
    bases = [arm for arm in by_arm if not is_draft(arm)]
    lines = []
    for arm, t in by_arm.items():
        ratios = [f"{t.tokens_per_second / by_arm[base].tokens_per_second:.2f}x" for base in bases]
        rates = ", ".join(f"{rate:.2f}" for rate in acceptance_rates(t.acceptance)) if arm.startswith("chain") else ""
        lines.append([arm, *ratios, f"{average_acceptance_length(t.acceptance):.2f}" if is_draft(arm) else "1", rates])
    return ["arm", *(f"speed-up ratio over {base}" for base in bases), "tau", "n-alpha, n = 0, 1, ..."], lines


def phase_lines(result: dict[str, Any]) -> tuple[list[str], Lines]:
    """Milliseconds of a round by phase, and of a prompt's forward."""
    lines = []
    for arm, t in totals(result).items():
        phases = t.per_round()
        cells = [f"{1e3 * phases[phase]:.2f}" for phase in PHASES] if phases else [""] * len(PHASES)
        whole = (t.seconds - t.capture_seconds) / (t.rounds or t.tokens) if t.tokens else 0.0
        lines.append([arm, *cells, f"{1e3 * whole:.2f}", f"{1e3 * t.prefill_seconds / t.prompts:.0f}"])
    return ["arm", *(f"{phase} ms" for phase in PHASES), "round ms", "prefill ms a prompt"], lines


def acceptance_lines(acceptance: Acceptance) -> tuple[list[str], Lines]:
    """By depth: how often a round got there, and the rank of the accepted child, as shares of all rounds."""
    ranks = sorted({rank for accepted in acceptance.accepted for rank in accepted})
    lines = []
    for depth, (tested, accepted) in enumerate(zip(acceptance.tested, acceptance.accepted, strict=True), start=1):
        count = sum(accepted.values())
        shares = [f"{accepted.get(rank, 0) / acceptance.rounds:.3f}" for rank in ranks]
        lines.append([str(depth), str(tested), f"{count / acceptance.rounds:.3f}", f"{count / tested:.3f}", *shares])
    headings = [
        "depth",
        "rounds tested",
        "accepted per round",
        "accepted if tested",
        *(f"from rank {rank}" for rank in ranks),
    ]
    return headings, lines


def is_draft(arm: str) -> bool:
    return arm.startswith(("tree", "chain"))


def all_tables(result: dict[str, Any]) -> list[tuple[str, list[str], Lines]]:
    """(title, headings, lines) of everything that a decoding result says."""
    found = [
        ("Tokens per second without the prompt's forward", *speed_lines(result)),
        ("The papers' metrics", *metric_lines(result)),
        ("Time of a round by phase", *phase_lines(result)),
    ]
    for arm, t in totals(result).items():
        if is_draft(arm):
            found.append(
                (f"Accepted tokens per round by depth and sibling rank, {arm}", *acceptance_lines(t.acceptance))
            )
    return found


def decode_tables(result: dict[str, Any]) -> Group:
    shown: list[Any] = [Text(result["machine"]["label"])]
    for title, headings, lines in all_tables(result):
        table = Table(title=title, title_justify="left")
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left")
        for line in lines:
            table.add_row(*line)
        shown.append(table)
    return Group(*shown, *(Text(line) for line in footnotes(result)))


def footnotes(result: dict[str, Any]) -> list[str]:
    """The definitions, and what a reader must know about an arm."""
    notes = [f"{arm}: {note}." for arm, note in result["machine"]["notes"].items()]
    notes += [f"{arm}: {share:.0%} of texts are plain's." for arm, share in result.get("equal_texts", {}).items()]
    return [*(f"{name}: {meaning}." for name, meaning in DEFINITIONS.items()), *notes]
