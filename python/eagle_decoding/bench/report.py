"""The table in its four forms: on the terminal, as CSV, as JSON, and as a picture."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from eagle_decoding.bench.summary import MEAN, Row
from eagle_decoding.files import write_bytes

CAPTION = """medians over runs, in brackets the lowest and the highest; tokens per round: accepted drafts + 1
same text: as plain decoding with the same seed; greedy fp32: as transformers' generate, each file's first question"""


def write_reports(folder: Path, rows: list[Row], facts: dict[str, Any]) -> list[Path]:
    """table.csv, table.json and table.png in a folder, each whole or not at all; returns their paths."""
    from eagle_decoding.bench.picture import draw

    table = io.StringIO()
    flat = [flatten(row) for row in rows]
    writer = csv.DictWriter(table, fieldnames=list(flat[0]))
    writer.writeheader()
    writer.writerows(flat)
    contents = {
        "table.csv": table.getvalue().encode(),
        "table.json": json.dumps({"facts": facts, "rows": [asdict(row) for row in rows]}, indent=1).encode(),
        "table.png": draw(rows),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in contents]


def flatten(row: Row) -> dict[str, Any]:
    """A row with a column for each number: vs_plain, vs_plain_low, vs_plain_high."""
    fields = asdict(row)
    for name in ("vs_transformers", "vs_plain"):
        spread = fields.pop(name)
        fields |= {name: spread["median"], f"{name}_low": spread["low"], f"{name}_high": spread["high"]}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in fields.items()}


def tables(rows: list[Row]) -> list[Table]:
    """One table a temperature: a method a row, its speed against transformers' generate by file, and means."""
    return [
        one_table([row for row in rows if row.temperature == t], t) for t in dict.fromkeys(r.temperature for r in rows)
    ]


def one_table(rows: list[Row], temperature: float) -> Table:
    table = Table(
        title=f"Temperature {temperature:g}: speed against transformers' generate, without the prompt's forward",
        title_justify="left",
        caption=CAPTION,
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    files = [file for file in dict.fromkeys(row.file for row in rows) if file != MEAN]
    for heading in (*files, "mean", "against plain", "worst file", "tokens per round", "same text", "greedy fp32"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method in dict.fromkeys(row.method for row in rows):
        of_file = {row.file: row for row in rows if row.method == method}
        mean = of_file[MEAN]
        spread, plain = mean.vs_transformers, mean.vs_plain
        table.add_row(
            method,
            *(f"{of_file[file].vs_transformers.median:.2f}x" for file in files),
            f"{spread.median:.2f}x [{spread.low:.2f}, {spread.high:.2f}]",
            f"{plain.median:.2f}x [{plain.low:.2f}, {plain.high:.2f}]",
            f"{min(of_file[file].vs_plain.median for file in files):.2f}x",
            f"{mean.tokens_per_round:.2f}" if mean.tokens_per_round else "",
            f"{mean.same_text:.0%}",
            "" if mean.identical is None else f"{mean.identical:.0%}",
        )
    return table
