"""Training curves: loss, tau_sim and survival against tokens, several runs in one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eagle_decoding.figure import COLOURS, INK, dress, new_figure
from eagle_decoding.files import whole_lines
from eagle_decoding.train.errors import DataError

LINES = ("-", "--", ":")  # the next of them once all colours are taken
ABREAST = 0.8  # of the distance between two depths: what the bars of all runs share


def read_log(path: Path) -> list[dict[str, Any]]:
    """The reports of a run in the order of their steps; of a step that was repeated after a resume, the last.

    path: the run's folder or its log.jsonl, whose last line may be torn. Raises DataError if there is no log or another
    line of it is no report.
    """
    file = path / "log.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"There is no training log at {file}; name the out folder of a run or its log.jsonl.")
    reports: dict[tuple[str, int], dict[str, Any]] = {}
    for number, line in enumerate(whole_lines(file), 1):
        try:
            report = json.loads(line)
            if report["kind"] != "note":
                reports[report["kind"], report["step"]] = report
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"Line {number} of {file} is no report of a run ({error}); remove it.") from error
    return sorted(reports.values(), key=lambda report: report["step"])


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Draw the curves of runs into one picture with a transparent ground: thin lines training, dots held-out rows.

    Survival is drawn as bars, the runs side by side at each depth, so that none hides another.
    """
    figure = new_figure(13, 4)
    from matplotlib.ticker import EngFormatter, MaxNLocator

    loss, tau, survival = figure.subplots(1, 3)
    for index, run in enumerate(runs):
        stroke = _stroke(index)
        reports = read_log(run)
        name = run.name if run.is_dir() else run.parent.name
        for kind, style in (("train", {"lw": 0.8, "alpha": 0.7}), ("eval", {"lw": 1.5, "marker": "o", "ms": 3})):
            mine = [report for report in reports if report["kind"] == kind]
            label = name if kind == "eval" else None
            tokens = [report["tokens"] for report in mine]
            loss.plot(tokens, [report["loss"][0] for report in mine], label=label, **stroke, **style)
            tau.plot(tokens, [report["tau_sim"] for report in mine], **stroke, **style)
        last = next((report for report in reversed(reports) if report["kind"] == "eval"), None)
        if last:
            width = ABREAST / len(runs)
            shift = (index + 0.5) * width - ABREAST / 2
            depths = [depth + shift for depth in range(1, len(last["survival"]) + 1)]
            survival.bar(depths, last["survival"], 0.8 * width, **_fill(index))
    for axes, x, y in (
        (loss, "answer tokens trained on", "cross-entropy of the first draft"),
        (tau, "answer tokens trained on", "tau_sim"),
        (survival, "depth", "survival on held-out rows at the end"),
    ):
        dress(axes, x, y)
    for axes in (loss, tau):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    survival.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.legend(frameon=False, labelcolor=INK)
    figure.savefig(out, transparent=True)


def _stroke(index: int) -> dict[str, str]:
    """Colour and line of a run: no two of the first eighteen look alike."""
    return {"color": COLOURS[index % len(COLOURS)], "ls": LINES[index // len(COLOURS) % len(LINES)]}


def _fill(index: int) -> dict[str, Any]:
    """The bars of a run, in the colour of its line: filled, and where lines are broken hollow."""
    colour = COLOURS[index % len(COLOURS)]
    return {"edgecolor": colour, "lw": 0.8, "facecolor": colour if index < len(COLOURS) else "none"}
