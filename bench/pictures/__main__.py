"""Draws every picture: python -m bench.pictures docs/results/pictures OPS.json DECODE.json GROWTH.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib import pyplot
from matplotlib.figure import Figure

from bench import command
from bench.pictures.decode import acceptance_by_depth, round_breakdown, speed_against_tree_size
from bench.pictures.growth import cost_of_growth
from bench.pictures.ops import share_of_ceiling
from bench.pictures.style import SETTINGS, save
from bench.results_file import read_json

PICTURES: dict[str, dict[str, Callable[[dict[str, Any]], Figure]]] = {  # by the key that tells kinds of results apart
    "rows": {"share-of-ceiling": share_of_ceiling},
    "files": {
        "round-breakdown": round_breakdown,
        "acceptance-by-depth": acceptance_by_depth,
        "speed-against-tree-size": speed_against_tree_size,
    },
    "growth": {"growth": cost_of_growth},
}


def main(
    folder: Path, results: Annotated[list[Path], typer.Argument(help="Files that the benchmarks wrote, of any kind.")]
) -> None:
    """Writes one SVG a picture into the folder."""
    for file in results:
        result = read_json(file, "machine")
        kinds = [kind for kind in PICTURES if kind in result]
        if not kinds:
            raise typer.BadParameter(f"{file} holds none of {', '.join(PICTURES)}: no picture is made of it.")
        for name, draw in PICTURES[kinds[0]].items():
            with pyplot.rc_context(SETTINGS):
                print(save(draw(result), folder / f"{name}.svg", result["machine"]))


if __name__ == "__main__":
    command.run(main)
