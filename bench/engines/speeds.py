"""A result of python -m bench.engines as a table: tokens a second, tokens per round, what float32 says of the texts."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table


def total(measurements: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Sums over files."""
    rows = list(measurements)
    return {key: sum(row[key] for row in rows) for key in rows[0]}


def speed(measured: dict[str, float]) -> float:
    """New tokens after the first, a second; 0 where there was none."""
    return measured["steps"] / measured["seconds"] if measured["seconds"] else 0.0


def tokens_per_round(measured: dict[str, float]) -> float:
    return measured["steps"] / measured["rounds"] if measured["rounds"] else 1.0


def speed_table(result: dict[str, Any]) -> Table:
    files = result["files"]
    table = Table(title=f"Tokens a second; {result['machine']['label']}", title_justify="left")
    table.add_column("engine", no_wrap=True)
    headings = ["all", "over the first", "tokens per round", "in float32", "equal texts", "not float32's choice"]
    for heading in [*headings, *files]:
        table.add_column(heading, justify="right")
    names = list(next(iter(files.values())))
    for name in names:
        by_file = [arms[name] for arms in files.values()]
        whole, judged = total(by_file), result["float32"][name]
        ratios = [speed(arms[name]) / speed(arms[names[0]]) for arms in files.values()]
        walked = f"{whole['steps'] / judged['rounds']:.2f}" if "rounds" in judged else ""
        cells = [f"{speed(whole):.1f}", f"{sum(ratios) / len(ratios):.2f}x", f"{tokens_per_round(whole):.2f}", walked]
        cells += [f"{result['equal_texts'][name]:.0%}", f"{judged['other_choices']} of {judged['tokens']}"]
        table.add_row(name, *cells, *(f"{speed(measured):.1f}" for measured in by_file))
    return table
