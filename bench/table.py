"""Result files of ops as tables: time, bytes, operations, share of the ceiling, and how far ahead of each rival."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from bench.measure import Row
from bench.results_file import ceilings_of, rows_of
from bench.spread import Spread, spread
from eagle_decoding.floor.ceilings import Ceilings

OURS = ("cpp", "triton")
RIVALS = ("reference", "torch", "compiled")
HEADINGS = (
    "case",
    "KB",
    "MFLOP",
    "warm µs",
    "cold µs",
    "±",
    "GB/s",
    "GFLOP/s",
    "of ceiling",
    *(f"{r} /" for r in RIVALS),
)


@dataclass(frozen=True)
class Figures:
    """What one row of a table says, about this package's fastest backend with cold caches.

    share: of the ceiling: floor time / time, the floor being max(bytes / bandwidth, flops / peak)
    ahead: by rival, its cold time / ours
    """

    warm: Spread
    cold: Spread
    bytes_per_second: float
    flops_per_second: float
    share: float
    ahead: dict[str, float]


def figures(row: Row, ceilings: Ceilings) -> Figures:
    cold = {name: spread(samples.cold) for name, samples in row.samples.items()}
    ours = min((name for name in OURS if name in cold), key=lambda name: cold[name].median)
    seconds = cold[ours].median
    return Figures(
        warm=spread(row.samples[ours].warm),
        cold=cold[ours],
        bytes_per_second=row.bytes / seconds,
        flops_per_second=row.flops / seconds,
        share=ceilings.floor(row.bytes, row.flops) / seconds,
        ahead={name: cold[name].median / seconds for name in RIVALS if name in cold},
    )


def cells(row: Row, ceilings: Ceilings) -> list[str]:
    f = figures(row, ceilings)
    return [
        row.case,
        f"{row.bytes / 1e3:,.0f}",
        f"{row.flops / 1e6:,.1f}" if row.flops else "",
        f"{1e6 * f.warm.median:,.1f}",
        f"{1e6 * f.cold.median:,.1f}",
        f"{f.cold.noise:.0%}",
        f"{f.bytes_per_second / 1e9:.2f}",
        f"{f.flops_per_second / 1e9:.1f}" if row.flops else "",
        f"{f.share:.0%}",
        *(f"{f.ahead[name]:.2f}" if name in f.ahead else "" for name in RIVALS),
    ]


def ceiling_line(ceilings: Ceilings) -> str:
    return (
        f"{ceilings.threads} thread{'s' if ceilings.threads > 1 else ''}; ceilings of this run: "
        f"copy {ceilings.copy_bandwidth / 1e9:.1f} GB/s, read {ceilings.read_bandwidth / 1e9:.1f} GB/s, "
        f"matrix product {ceilings.flops_per_second / 1e9:.0f} GFLOP/s"
    )


def sections(result: dict[str, Any]) -> list[tuple[str, list[Row], Ceilings]]:
    """(title, rows by op, ceilings) for each number of threads."""
    rows = rows_of(result)
    return [
        (ceiling_line(ceilings), sorted((r for r in rows if r.threads == threads), key=lambda r: r.op), ceilings)
        for threads, ceilings in ceilings_of(result).items()
    ]


def lead_lines(result: dict[str, Any]) -> list[list[str]]:
    """For each op and number of threads: at how many cases it is ahead of each rival, and by how much."""
    lines = []
    for _, rows, ceilings in sections(result):
        for op in dict.fromkeys(row.op for row in rows):
            ahead = [figures(row, ceilings).ahead for row in rows if row.op == op]
            leads = [lead([a[name] for a in ahead if name in a]) for name in RIVALS]
            lines.append([op, str(ceilings.threads), *leads])
    return lines


def lead(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    wins = sum(ratio > 1 for ratio in ratios)
    return f"{wins} of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}"


LEAD_HEADINGS = ("op", "threads", *(f"ahead of {rival}; time / ours" for rival in RIVALS))


def rich_tables(result: dict[str, Any]) -> Group:
    """One table for each number of threads, and the summary."""
    tables = []
    for title, rows, ceilings in sections(result):
        table = Table(title=title, title_justify="left")
        for index, heading in enumerate(("op", *HEADINGS)):
            table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=index != 1)
        for before, row in zip([None, *rows], rows, strict=False):
            first = before is None or before.op != row.op
            if first and before is not None:
                table.add_section()
            table.add_row(row.op if first else "", *cells(row, ceilings))
        tables.append(table)
    summary = Table(*LEAD_HEADINGS, title="Cases where this package is ahead", title_justify="left")
    for line in lead_lines(result):
        summary.add_row(*line)
    return Group(*tables, summary)


def markdown(result: dict[str, Any]) -> str:
    """The same tables for a document."""
    parts = [f"Machine: {result['machine']['label']}, commit {result['machine']['commit']}.", ""]
    parts += markdown_table(LEAD_HEADINGS, lead_lines(result))
    for title, rows, ceilings in sections(result):
        parts += ["", f"### {title}", ""]
        parts += markdown_table(("op", *HEADINGS), [[f"`{row.op}`", *cells(row, ceilings)] for row in rows])
    return "\n".join(parts) + "\n"


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---" if index < 2 else "--:" for index in range(len(headings))]
    return ["| " + " | ".join(line) + " |" for line in (headings, rule, *lines)]
