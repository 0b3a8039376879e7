"""The table as a picture: a bar for each method's mean speed, a dot for each file; readable on light and on dark."""

import io

from eagle_decoding.bench.methods import BASELINE
from eagle_decoding.bench.summary import MEAN, Row

INK = "#808080"  # has contrast with white and with black
BARS = {0.0: "#3b82c4", 1.0: "#d98a29"}  # told apart by the colour-blind too
OTHER = "#5a9e6f"


def draw(rows: list[Row]) -> bytes:
    """A PNG with a panel for each temperature, methods from the fastest down.

    Raises ValueError when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("The picture needs matplotlib: pip install 'eagle-kernels[bench]'.") from error
    temperatures = list(dict.fromkeys(row.temperature for row in rows))
    methods = len({row.method for row in rows})
    figure = Figure(figsize=(6 * len(temperatures), 1.2 + 0.36 * methods), layout="constrained")
    for place, temperature in enumerate(temperatures, start=1):
        axes = figure.add_subplot(1, len(temperatures), place)
        shown = [row for row in rows if row.temperature == temperature]
        means = sorted((row for row in shown if row.file == MEAN), key=lambda row: row.vs_transformers.median)
        for height, mean in enumerate(means):
            speed = mean.vs_transformers
            whiskers = [[speed.median - speed.low], [speed.high - speed.median]]
            colour = INK if mean.method == BASELINE else BARS.get(temperature, OTHER)
            axes.barh(height, speed.median, color=colour, xerr=whiskers, ecolor=INK, height=0.62)
            dots = [row.vs_transformers.median for row in shown if row.method == mean.method and row.file != MEAN]
            axes.plot(dots, [height] * len(dots), "o", color=INK, markersize=3.5, markeredgewidth=0)
            label = f" {speed.median:.2f}x"
            if mean.tokens_per_round > 1:
                label += f", {mean.tokens_per_round:.2f} a round"
            axes.text(max([speed.high, *dots]), height, label, va="center", color=INK, fontsize=8)
        axes.set_yticks(range(len(means)), [mean.method for mean in means])
        axes.set_title(f"temperature {temperature:g}", color=INK, fontsize=10)
        axes.set_xlabel("speed against transformers' generate (bar: mean, dots: files)", color=INK, fontsize=8)
        axes.margins(x=0.22)
        axes.set_xlim(left=0)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
    picture = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png", dpi=150, transparent=True)
    return picture.getvalue()
