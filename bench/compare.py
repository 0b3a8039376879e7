"""Two result files side by side: which timings changed by more than the noise that both runs measured."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.results_file import ceilings_of, rows_of
from bench.spread import Spread, spread


@dataclass(frozen=True)
class Change:
    """One rival on one case in both runs, cold caches; ratio is after / before."""

    op: str
    case: str
    threads: int
    rival: str
    before: Spread
    after: Spread

    @property
    def ratio(self) -> float:
        return self.after.median / self.before.median

    @property
    def verdict(self) -> str:
        """ "faster" or "slower" beyond noise, else empty."""
        if not self.before.differs_from(self.after):
            return ""
        return "slower" if self.ratio > 1 else "faster"


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Everything that both files hold, in the order of the second; ValueError if they have nothing in common."""
    earlier = {row.key: row for row in rows_of(before)}
    found = [
        Change(*row.key, rival, spread(earlier[row.key].samples[rival].cold), spread(samples.cold))
        for row in rows_of(after)
        if row.key in earlier
        for rival, samples in row.samples.items()
        if rival in earlier[row.key].samples
    ]
    if not found:
        raise ValueError("The two files have no case in common: time the same ops on the same shapes.")
    return found


def comparison_table(found: list[Change], every: bool) -> Table:
    """Changes beyond noise, or all timings."""
    marked = [change for change in found if change.verdict]
    title = f"{len(marked)} of {len(found)} timings differ beyond noise (the middle 80 % of samples are disjoint)"
    table = Table(title=title, title_justify="left")
    for heading in ("op", "case", "threads", "rival", "before µs", "±", "after µs", "±", "after / before", ""):
        table.add_column(heading, justify="left" if heading in ("op", "case", "rival", "") else "right")
    for change in found if every else marked:
        table.add_row(
            change.op,
            change.case,
            str(change.threads),
            change.rival,
            f"{1e6 * change.before.median:,.1f}",
            f"{change.before.noise:.0%}",
            f"{1e6 * change.after.median:,.1f}",
            f"{change.after.noise:.0%}",
            f"{change.ratio:.2f}",
            change.verdict,
            style={"faster": "green", "slower": "red"}.get(change.verdict),
        )
    return table


def ceiling_changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One sentence for each number of threads: how the machine itself changed between the runs."""
    earlier, lines = ceilings_of(before), []
    for threads, now in ceilings_of(after).items():
        if threads in earlier:
            then = earlier[threads]
            lines.append(
                f"{threads} threads: the machine's bandwidth is {now.bandwidth / then.bandwidth:.2f} of what it was, "
                f"its matrix product {now.flops_per_second / then.flops_per_second:.2f}."
            )
    return lines
