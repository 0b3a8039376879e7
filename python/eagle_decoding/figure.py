"""What the package's pictures share: an empty figure, colours, and a grey that shows on light and on dark pages."""

from typing import Any

INK = "#808080"  # has contrast with white and with black
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#64748b")


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches. Raises ValueError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("Drawing needs the package matplotlib: run `pip install matplotlib`.") from error
    return Figure(figsize=(width, height), layout="constrained")


def dress(axes: Any, x: str, y: str) -> None:
    """Name both axes, and draw everything that is no data in grey."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=INK, alpha=0.25, lw=0.5)
    for spine in axes.spines.values():
        spine.set_color(INK)
