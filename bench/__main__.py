"""The benchmark command: python -m bench times ops; `compare` and `show` read its files, bench.pictures draws them."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.compare import ceiling_changes, changes, comparison_table
from bench.console import console
from bench.measure import Plan, all_ops, measure
from bench.results_file import read_json, write_json
from bench.shapes import MODELS, SHORT_MODELS
from bench.table import markdown, rich_tables
from eagle_decoding.cli import Commands

app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)
ResultFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]


@app.callback(invoke_without_command=True)
def ops(
    context: typer.Context,
    ops: Annotated[str, typer.Option(help="Ops to time, separated by commas; all of them by default.")] = "",
    models: Annotated[str, typer.Option(help=f"From: {'; '.join(MODELS)}. Separated by ;")] = ";".join(SHORT_MODELS),
    batch: Annotated[str, typer.Option(help="Requests, a list.")] = "1",
    context_len: Annotated[str, typer.Option("--context", help="Committed rows, a list.")] = "1024",
    nodes: Annotated[str, typer.Option(help="Nodes of the tree, a list.")] = "8",
    threads: Annotated[str, typer.Option(help="Threads of the CPU, a list; torch's number by default.")] = "",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    without: Annotated[str, typer.Option(help="Rivals to leave out: reference, torch, compiled.")] = "",
    passes: Annotated[int, typer.Option(help="Times through everything; the noise is measured across them.")] = 3,
    repeats: Annotated[int, typer.Option(help="Samples a pass takes of each rival.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
) -> None:
    """Time ops on model shapes against plain and compiled torch, and against what the machine can do."""
    if context.invoked_subcommand:
        return
    known = all_ops()
    chosen = split(ops) or known
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"No op is called {', '.join(unknown)}: choose from {', '.join(known)}.")
    plan = Plan(
        ops=chosen,
        models=split(models, ";"),
        batches=numbers(batch),
        contexts=numbers(context_len),
        nodes=numbers(nodes),
        threads=numbers(threads) or [torch.get_num_threads()],
        dtype=dtype,
        device=device,
        without=split(without),
        passes=passes,
        repeats=repeats,
    )
    result = measure(plan)
    console().print(rich_tables(result))
    if out is not None:
        write_json(result, out)


@app.command()
def show(
    file: ResultFile, as_markdown: Annotated[bool, typer.Option("--markdown", help="For a document.")] = False
) -> None:
    """Print the tables of a result file."""
    result = read_json(file, "rows", "ceilings", "machine")
    if as_markdown:
        print(markdown(result), end="")
    else:
        console().print(rich_tables(result))


@app.command()
def compare(
    before: ResultFile,
    after: ResultFile,
    every: Annotated[bool, typer.Option("--all", help="Also what did not change.")] = False,
) -> None:
    """Mark the timings that changed by more than the measured noise."""
    first, second = (read_json(file, "rows", "ceilings") for file in (before, after))
    for line in ceiling_changes(first, second):
        console().print(line)
    console().print(comparison_table(changes(first, second), every))


def split(text: str, separator: str = ",") -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def numbers(text: str) -> list[int]:
    """A list of positive integers; ValueError names what is not one."""
    parts = split(text)
    wrong: list[Any] = [part for part in parts if not part.isdigit() or int(part) == 0]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} is not a positive number: give numbers separated by commas.")
    return [int(part) for part in parts]


if __name__ == "__main__":
    app()
