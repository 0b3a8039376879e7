"""The picture of growing context and batch: time of a round by phase, and the tau from which drafting pays."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.growth import PHASES, break_even
from bench.pictures.style import COLORS, INK, new_figure
from bench.pictures.style import PHASES as PHASE_COLORS


def cost_of_growth(result: dict[str, Any]) -> Figure:
    """Stacked bars of the tree's round with a mark for the plain one; above each bar the break-even tau."""
    rows = result["growth"]
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    batch, context = pairs[0][0]["batch"], pairs[0][0]["context"]
    figure, (by_context, by_batch) = new_figure(columns=2, width=10, height=4.6)
    bars(by_context, [pair for pair in pairs if pair[0]["batch"] == batch], "context")
    by_context.set(xlabel="tokens of context", ylabel="milliseconds a round", title=f"Context grows, batch {batch}")
    bars(by_batch, [pair for pair in pairs if pair[0]["context"] == context], "batch")
    by_batch.set(xlabel="requests in the batch", title=f"Batch grows, context {context:,}")
    by_context.legend(fontsize=8, title="above a bar: tokens a round\nfrom which drafting pays", title_fontsize=8)
    return figure


def bars(axes: Axes, pairs: list[tuple[dict[str, Any], dict[str, Any]]], grows: str) -> None:
    labels = [f"{plain[grows]:,}" for plain, _ in pairs]
    bottom = [0.0] * len(pairs)
    for phase in PHASES:
        heights = [1e3 * tree["phases"][phase] for _, tree in pairs]
        axes.bar(labels, heights, bottom=bottom, color=PHASE_COLORS[phase], label=phase, width=0.6)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    plain_times = [1e3 * sum(plain["phases"].values()) for plain, _ in pairs]
    axes.scatter(labels, plain_times, marker="_", s=400, color=COLORS[4], linewidths=3, label="plain round", zorder=3)
    for label, top, (plain, tree) in zip(labels, bottom, pairs, strict=True):
        axes.annotate(f"{break_even(plain, tree):.2f}", (label, top), (0, 3), textcoords="offset points",
                      ha="center", fontsize=8, color=INK)  # fmt: skip
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
