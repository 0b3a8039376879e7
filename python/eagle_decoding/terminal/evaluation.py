"""Tables and the plot of an evaluated head: tokens per round and survival by depth, per file and on average"""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from eagle_decoding.figure import COLOURS, INK, dress, new_figure
from eagle_decoding.train.probe import Finding


def file_tables(summary: dict[str, Any]) -> list[Table]:
    """One table per file and one of the means. summary: as `eagle_decoding.train.acceptances.summary` gives it."""
    tables = [arm_table(f"{file}: rounds and survival by depth", arms) for file, arms in summary["files"].items()]
    return [*tables, arm_table(f"mean of {len(summary['files'])} files", summary["mean"])]


def arm_table(title: str, arms: dict[str, Any]) -> Table:
    """One row per way of decoding: tokens per round (accepted drafts + 1), then the share of rounds by depth."""
    table = Table(title=title, title_justify="left")
    table.add_column("decoding")
    table.add_column("tokens/round", justify="right")
    depths = max(len(cell["survival"]) for cell in arms.values())
    for depth in range(1, depths + 1):
        table.add_column(f"{depth}", justify="right")
    for name, cell in arms.items():
        table.add_row(name, f"{cell['tokens_per_round']:.2f}", *(f"{share:.0%}" for share in cell["survival"]))
    return table


def variant_table(findings: list[Finding]) -> Table:
    """First drafts by reading of a head: how many are right, and how much likelier the text is than as given."""
    title = f"First drafts at {len(findings[0].hit)} positions, by reading of the head"
    table = Table(title=title, title_justify="left")
    table.add_column("layer ids")
    for heading in ("rope base", "right", "log-probability", "gain over the config's reading"):
        table.add_column(heading, justify="right")
    for finding in findings:
        variant = finding.variant
        gain, error = finding.lead(findings[0])
        ids = ", ".join(map(str, variant.config.aux_layer_ids or ()))
        table.add_row(
            f"{ids} ({variant.shift:+d})" if variant.shift else ids,
            f"{variant.rope_theta:g}",
            f"{finding.hit.float().mean():.1%}",
            f"{finding.logprob.mean():.3f}",
            "" if finding is findings[0] else f"{gain:+.3f} ± {error:.3f}",
        )
    return table


def plot_survival(results: Path, image: Path) -> None:
    """Survival by depth, mean over files, one line per way of decoding, from the JSON file of an evaluation.

    The background is transparent and every stroke of middle lightness, so that it reads on light and dark pages.
    Raises ValueError where matplotlib is missing.
    """
    figure = new_figure(6.4, 4.0)
    from matplotlib.ticker import MaxNLocator

    mean = json.loads(results.read_text())["summary"]["mean"]
    axes = figure.subplots()
    for colour, (name, cell) in zip(COLOURS * len(mean), mean.items(), strict=False):
        depths = range(1, len(cell["survival"]) + 1)
        label = f"{name}: {cell['tokens_per_round']:.2f} tokens per round"
        style = "--" if name.startswith("chain") else "-"
        axes.plot(depths, cell["survival"], style, marker="o", color=colour, label=label)
    dress(axes, "depth of the draft", "share of rounds accepted to this depth")
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, labelcolor=INK)
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, transparent=True, dpi=160)
