"""The roofline of the ops: operations per byte against operations per second, under the measured ceilings."""

from typing import Any

from matplotlib.figure import Figure

from bench.pictures.style import COLORS, INK, new_figure
from bench.spread import spread
from bench.table import OURS, sections


def roofline(result: dict[str, Any]) -> Figure:
    """A point for each case with operations to count, cold caches, most threads; torch's eager way beside it."""
    title, rows, ceilings = sections(result)[-1]
    counted = [row for row in rows if row.flops]
    figure, (axes,) = new_figure(width=9, height=5.4)
    ridge = ceilings.flops_per_second / ceilings.bandwidth
    intensities = [row.flops / row.bytes for row in counted]
    bends = [min(intensities) / 2, ridge, max(*intensities, ridge) * 2]
    roof = [min(x * ceilings.bandwidth, ceilings.flops_per_second) / 1e9 for x in bends]
    axes.plot(bends, roof, color=INK, linewidth=2)
    ops = list(dict.fromkeys(row.op for row in counted))
    for index, op in enumerate(ops):
        color, letter = COLORS[index % len(COLORS)], chr(ord("a") + index)
        for row in (row for row in counted if row.op == op):
            cold = {name: spread(samples.cold).median for name, samples in row.samples.items()}
            ours = min(cold[name] for name in OURS if name in cold)
            x = row.flops / row.bytes
            axes.scatter(x, row.flops / ours / 1e9, marker=f"${letter}$", color=color, s=55)
            if "torch" in cold:
                axes.scatter(x, row.flops / cold["torch"] / 1e9, marker=".", color=INK, s=18, alpha=0.7)
        axes.scatter([], [], marker=f"${letter}$", color=color, label=op)
    axes.scatter([], [], marker=".", color=INK, label="torch, eager")
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s", title=title)
    axes.title.set_fontsize(9)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure
