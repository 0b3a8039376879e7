"""What a run shows while it trains: one line of figures that moves, and a JSONL log that stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from eagle_decoding.files import cut_torn_line
from eagle_decoding.train.tensorboard import TensorBoardLog


@contextmanager
def row_progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over rows with tokens a second and the time that is left; report(rows finished, tokens written)."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows  {task.fields[tokens]} tokens  {task.fields[speed]:.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("rows", total=total, tokens=0, speed=0.0)
        start, written = time.perf_counter(), 0

        def report(rows: int, tokens: int) -> None:
            nonlocal written
            written += tokens
            speed = written / max(time.perf_counter() - start, 1e-9)
            bar.update(task, advance=rows, tokens=written, speed=speed)

        yield report


class RunLog:
    """Reports of a training run: appended to `log.jsonl`, and shown as a moving bar over a table of depths, a line per
    evaluation, and sentences about where it goes on from and what went wrong."""

    def __init__(self, folder: str | Path, console: Console | None = None, tensorboard: bool = False):
        """tensorboard: write the figures for TensorBoard into the folder, too."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._curves = TensorBoardLog(folder) if tensorboard else None
        cut_torn_line(Path(folder) / "log.jsonl")
        self._file = open(Path(folder) / "log.jsonl", "a")  # noqa: SIM115
        self._console = console or Console()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:5.1f}%  {task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("training", total=1.0, figures="")
        self._live = Live(self._bar, console=self._console, refresh_per_second=1)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()
            if not self._console.is_interactive:
                self._console.print()  # rich leaves the last line of a file open
        if self._curves:
            self._curves.close()
        with suppress(OSError):  # a full disk was told of when the line was written
            self._file.close()

    def __call__(self, report: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(report) + "\n")
            self._file.flush()
        except OSError as error:
            self._console.print(f"A line of log.jsonl could not be written: {error}.", style="yellow", markup=False)
        if report["kind"] == "note":
            self._console.print(report["text"], style="yellow", markup=False, soft_wrap=True)
            return
        if self._curves:
            self._curves.add(report)
        figures = f"loss {report['loss'][0]:.3f}  tau_sim {report['tau_sim']:.3f}"
        if report["kind"] == "eval":
            survival = " ".join(f"{value:.3f}" for value in report["survival"])
            self._console.print(f"step {report['step']:>6}  held out: {figures}  survival {survival}")
        else:
            self._live.start()  # not before there is something to show
            speed = report["tokens"] / max(report["seconds"], 1e-9)
            self._bar.update(self._task, completed=report["done"], figures=f"{figures}  {speed:.0f} tokens/s")
            self._live.update(Group(self._bar, depth_table(report)))


def depth_table(report: dict[str, Any]) -> Table:
    """How often each draft of a chain was right, and how often it and all before it were."""
    table = Table("depth", *(str(depth) for depth in range(1, len(report["survival"]) + 1)), box=None)
    for name, key in (("accepted if reached", "accuracy"), ("survival", "survival"), ("rows computed", "scored")):
        table.add_row(name, *(f"{value:.3f}" for value in report[key]))
    return table


def silent(report: dict[str, Any]) -> None:
    """The log of a process that is not the first."""
