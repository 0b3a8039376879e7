"""What all pictures share: mid-tone ink on a transparent ground, and a line that names machine and versions."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#7d8694"  # readable on white and on black
COLORS = ("#3f8fd2", "#e08a2c", "#3fa66b", "#c95f8e", "#8d74d6", "#b8a13a")
PHASES = dict(zip(("draft", "verify", "sample", "commit", "host"), COLORS, strict=False))
SETTINGS = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "font.size": 10,
    "svg.hashsalt": "eagle",  # the same file again gives the same picture
}


def new_figure(columns: int = 1, width: float = 8.0, height: float = 4.6) -> tuple[Figure, list[Axes]]:
    with pyplot.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def save(figure: Figure, path: Path, machine: dict[str, Any]) -> Path:
    """Writes an SVG under the given name with the machine's line below the axes, and closes the figure."""
    with pyplot.rc_context(SETTINGS):
        figure.supxlabel(machine["label"], fontsize=7, color=INK)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return path
