"""The table as a picture: a bar for each method's mean speed, a dot for each file; readable on light and on dark.

python -m eagle_decoding.bench.picture TABLE.json OUT.png [METHOD=LABEL ...] draws a saved table again.
"""

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from eagle_decoding.bench.methods import PLAIN, RIVALS
from eagle_decoding.bench.summary import MEAN, Ratio, Row
from eagle_decoding.figure import INK, new_figure

FASTER, SLOWER = "#3b82c4", "#d98a29"  # than plain decoding; told apart by the colour-blind too
BASE = "#a3a9b3"  # plain decoding and transformers' own
ABOUT = (
    "tokens per second over those of plain decoding here (dashed), without the prompt's forward\n"
    "bar: mean of the files, circles: the files; blue: ahead of it, orange: behind, grey: plain and transformers' own"
)


def draw(rows: list[Row], labels: Mapping[str, str] | None = None) -> bytes:
    """A PNG with a panel for each temperature and one scale for all, methods from the fastest of the first panel down.

    labels: what to write instead of a method's name

    Raises ValueError where matplotlib is missing.
    """
    temperatures = list(dict.fromkeys(row.temperature for row in rows))
    first = [row for row in rows if row.file == MEAN and row.temperature == temperatures[0]]
    methods = [row.method for row in sorted(first, key=lambda row: row.vs_plain.median)]
    figure = new_figure(2.2 + 4.4 * len(temperatures), 1.5 + 0.34 * len(methods))
    panels = figure.subplots(1, len(temperatures), sharex=True, sharey=True, squeeze=False)[0]
    for axes, temperature in zip(panels, temperatures, strict=True):
        shown = {(row.method, row.file): row for row in rows if row.temperature == temperature}
        for height, method in enumerate(methods):
            mean = shown[method, MEAN]
            speed = mean.vs_plain
            drafts = method != PLAIN and method not in RIVALS
            colour = BASE if not drafts else FASTER if speed.median >= 1 else SLOWER
            whiskers = [[speed.median - speed.low], [speed.high - speed.median]] if speed.high > speed.low else None
            axes.barh(height, speed.median, color=colour, xerr=whiskers, ecolor=INK, height=0.6)
            files = [row.vs_plain.median for (name, file), row in shown.items() if name == method and file != MEAN]
            if method != PLAIN:
                axes.plot(files, [height] * len(files), "o", ms=4.5, mfc="white", mec="#303030", mew=0.9)
            for x, text in ((1.11, f"{speed.median:.2f}x"), (1.25, f"{mean.tokens_per_round:.2f}" if drafts else "")):
                axes.text(x, height, text, transform=axes.get_yaxis_transform(), ha="right", va="center",
                          color=INK, fontsize=9)  # fmt: skip
        axes.axvline(1, color=INK, linewidth=1.2, linestyle="--", zorder=0.5)
        for x, text in ((1.11, "mean"), (1.25, "tokens\na round")):
            axes.text(x, len(methods) - 0.45, text, transform=axes.get_yaxis_transform(), ha="right", va="bottom",
                      color=INK, fontsize=8)  # fmt: skip
        axes.set_title(f"temperature {temperature:g}", color=INK, fontsize=11, loc="left")
        axes.set_yticks(range(len(methods)), [(labels or {}).get(method, method) for method in methods])
        axes.set(ylim=(-0.6, len(methods) - 0.4), xlim=(0, None))
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=9, length=0)
        axes.grid(axis="x", color=INK, alpha=0.25)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.supxlabel(ABOUT, color=INK, fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, transparent=True)
    return picture.getvalue()


def saved_rows(table: Path) -> list[Row]:
    """The rows of a table.json."""
    ratios = ("vs_transformers", "vs_plain")
    return [Row(**row | {name: Ratio(**row[name]) for name in ratios}) for row in json.loads(table.read_text())["rows"]]


if __name__ == "__main__":
    table, out, *pairs = sys.argv[1:]
    Path(out).write_bytes(draw(saved_rows(Path(table)), dict(pair.split("=", 1) for pair in pairs)))
