"""The picture of the ops: bars of the share of the machine's ceiling that each one reaches, grouped by what they do."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from bench.measure import Row
from bench.pictures.style import COLORS, INK, new_figure
from bench.table import figures, sections
from eagle_decoding.floor.ceilings import Ceilings

GROUPS = {
    "products with weights": ("draft_mlp", "draft_output", "draft_qkv_rope", "linear", "lm_head_topk"),
    "keys and values": ("tree_attention", "compact_kv", "write_kv"),
    "ranking and drawing over the vocabulary": (
        "gumbel_noise",
        "sample_children",
        "sample_tokens",
        "topk_logprobs",
        "verify_rejection",
    ),
}
OTHERS = "little to move, little to compute"
DARK = "#2b2f36"
TICK = [Stroke(linewidth=3, foreground="#ffffff"), Normal()]  # seen on a bar, on white and on black


def share_of_ceiling(result: dict[str, Any]) -> Figure:
    """A bar for each case and model, cold caches, most threads; a tick where torch's eager way stands."""
    _, rows, ceilings = sections(result)[-1]
    models = list(dict.fromkeys(row.model for row in rows))
    lines = [line for title in (*GROUPS, OTHERS) for line in group_lines(title, rows)]
    figure, (axes,) = new_figure(width=9, height=1.9 + 0.27 * len(lines))
    thickness = 0.8 / len(models)
    for place, (label, cases) in enumerate(lines):
        if not cases:
            axes.text(-0.27, place, label, transform=axes.get_yaxis_transform(), va="center", fontsize=9, weight="bold")
            continue
        axes.text(-0.01, place, label, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8)
        known = {row.model: figures(row, ceilings) for row in cases}
        for index, model in enumerate(model for model in models if model in known):
            height = place + (index - (len(known) - 1) / 2) * thickness
            share = known[model].share
            axes.barh(height, share, thickness, color=COLORS[models.index(model) % len(COLORS)])
            if "torch" in known[model].ahead:
                slower = share / known[model].ahead["torch"]
                tick(axes, [slower] * 2, [height - thickness / 2, height + thickness / 2])
        column(axes, 1.11, place, [f"{100 * f.share:.0f}" for f in known.values()], " %")
        column(axes, 1.27, place, [f"{1e6 * f.cold.median:,.0f}" for f in known.values()], " µs")
    explain(axes, models, ceilings, len(lines))
    figure.get_layout_engine().set(rect=(0.01, 0, 0.95, 1))  # figures at the right stand outside the axes
    return figure


def group_lines(title: str, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The group's title without cases, then a label and its cases, one a model; nothing for an empty group."""
    named = {op for ops in GROUPS.values() for op in ops}
    mine = [row for row in rows if (row.op in GROUPS[title] if title in GROUPS else row.op not in named)]
    lines: dict[str, list[Row]] = {}
    for row in mine:
        lines.setdefault(label_of(row, rows), []).append(row)
    return [(title, []), *lines.items()] if lines else []


def label_of(row: Row, rows: Sequence[Row]) -> str:
    """The op, and of its case what tells it from the op's other cases, the model apart."""
    cases = [other.case.split(", ") for other in rows if other.op == row.op and other.model == row.model]
    apart = [part for part in row.case.split(", ") if part != row.model and any(part not in case for case in cases)]
    return ", ".join((row.op, *apart))


def column(axes: Axes, x: float, y: float, numbers: Sequence[str], unit: str = "") -> None:
    """Figures of a line at the right edge, where no bar is."""
    text = " | ".join(numbers) + unit
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=7.5)


def tick(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, color=DARK, linewidth=1.8, path_effects=TICK, solid_capstyle="butt")


def explain(axes: Axes, models: Sequence[str], ceilings: Ceilings, lines: int) -> None:
    axes.axvline(1, color=INK, linewidth=1.2, linestyle="--")
    axes.text(1, -0.7, "ceiling", ha="center", va="bottom", fontsize=8)
    column(axes, 1.11, -0.9, ["share"])
    column(axes, 1.27, -0.9, ["time"])
    handles = [Patch(color=COLORS[index % len(COLORS)], label=model) for index, model in enumerate(models)]
    handles.append(Line2D([], [], color=DARK, linewidth=1.8, path_effects=TICK, label="torch, eager"))
    axes.legend(handles=handles, ncols=len(handles), loc="lower left", bbox_to_anchor=(-0.01, 1.0), fontsize=8)
    axes.set(ylim=(lines - 0.4, -0.6), yticks=[], xlim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(
        f"share of the ceiling, {ceilings.threads} thread{'s' if ceilings.threads > 1 else ''}, cold caches. "
        "100 %: every byte moved once at the measured\n"
        f"{ceilings.bandwidth / 1e9:.1f} GB/s or every operation done at the measured "
        f"{ceilings.flops_per_second / 1e9:.0f} GFLOP/s, whichever takes longer.\n"
        "More than 100 %: inputs lay in a shared cache that is not flushed.",
        fontsize=8,
    )
