"""Tables about finished runs: speed side by side, acceptance by depth, time by phase."""

from dataclasses import dataclass

from rich.table import Table

from eagle_decoding.stats import ONCE, Stats

BAR = 24  # characters of a full bar


@dataclass
class Run:
    """One timed call of generate for one request.

    tokens:  the new tokens
    seconds: wall time of the whole call, prompt included
    forwards: forwards of the target, prompt included
    """

    name: str
    tokens: list[int]
    seconds: float
    forwards: int

    @property
    def tokens_per_second(self) -> float:
        return len(self.tokens) / self.seconds


def first_difference(one: list[int], other: list[int]) -> int | None:
    """Index of the first token that differs (or that only one of them has), None for equal texts."""
    if one == other:
        return None
    shared = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(shared) if a != b), min(len(one), len(other)))


def speed_table(runs: list[Run]) -> Table:
    """One row per run; the first is compared with each other: how much faster it was, and whether texts agree."""
    table = Table(title="Drafting, without drafting, and transformers' own generate", title_justify="left")
    table.add_column("decoding")
    for heading in ("tokens", "forwards", "seconds", "tokens/s", "speed-up"):
        table.add_column(heading, justify="right")
    table.add_column("text")
    ours = runs[0]
    for run in runs:
        where = first_difference(ours.tokens, run.tokens)
        table.add_row(
            run.name,
            str(len(run.tokens)),
            str(run.forwards),
            f"{run.seconds:.2f}",
            f"{run.tokens_per_second:.1f}",
            "" if run is ours else f"{ours.tokens_per_second / run.tokens_per_second:.2f}x",
            "" if run is ours else "same" if where is None else f"differs at {where + 1}",
        )
    return table


def acceptance_table(stats: Stats) -> Table:
    """How deep the accepted paths reached, as shares of all rounds."""
    title = f"{stats.tokens_per_round:.2f} tokens per round (accepted drafts + 1), {stats.rounds} rounds"
    table = Table(title=title, title_justify="left")
    for heading in ("depth", "rounds", "share"):
        table.add_column(heading, justify="right")
    table.add_column("accepted paths that reached it")
    for depth, count in enumerate(stats.accepted_by_depth, start=1):
        share = count / stats.rounds
        table.add_row(str(depth), str(count), f"{share:.0%}", bar(share))
    return table


def phase_table(stats: Stats) -> Table:
    """Where the time of the rounds went."""
    table = Table(title="Time by phase", title_justify="left")
    table.add_column("phase")
    for heading in ("ms per round", "share"):
        table.add_column(heading, justify="right")
    table.add_column("of the rounds alone")
    for phase, seconds in stats.seconds.items():
        if phase in ONCE:
            table.add_row(f"{phase} (once)", f"{1e3 * seconds:.1f}", "", "")
            continue
        share = seconds / stats.decode_seconds
        table.add_row(phase, f"{1e3 * seconds / stats.rounds:.2f}", f"{share:.0%}", bar(share))
    return table


def bar(share: float) -> str:
    return "█" * round(BAR * share)


def summary(stats: Stats, seconds: float) -> str:
    """One line about a run."""
    speed = stats.tokens / seconds
    line = f"{stats.tokens} tokens in {seconds:.2f} s, {speed:.1f} tokens/s"
    return f"{line}, {stats.tokens_per_round:.2f} tokens per round" if stats.rounds else line
