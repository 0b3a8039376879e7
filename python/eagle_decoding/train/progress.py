"""What a run shows while it trains: one line of figures that moves, and a JSONL log that stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
    """Reports of a training run: appended to `log.jsonl`, shown as a progress bar and as a line per evaluation."""

    def __init__(self, folder: str | Path, console: Console | None = None):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = open(Path(folder) / "log.jsonl", "a")  # noqa: SIM115
        self._console = console or Console()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:5.1f}%  {task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("training", total=1.0, figures="")

    def __enter__(self) -> RunLog:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()

    def __call__(self, report: dict[str, Any]) -> None:
        self._file.write(json.dumps(report) + "\n")
        self._file.flush()
        speed = report["tokens"] / max(report["seconds"], 1e-9)
        survival = " ".join(f"{value:.3f}" for value in report["survival"])
        figures = f"loss {report['loss'][0]:.3f}  survival {survival}  tau_sim {report['tau_sim']:.3f}"
        if report["kind"] == "eval":
            self._console.print(f"step {report['step']:>6}  held out: {figures}")
        else:
            figures += f"  {speed:.0f} tokens/s"
            self._bar.update(self._task, completed=report["done"], figures=figures)
