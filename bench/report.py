"""Every table of a set of result files as one markdown document: python -m bench.report OUT.md FILES.json."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bench import command
from bench.decode_report import all_tables, footnotes
from bench.growth import growth_lines
from bench.results_file import read_json
from bench.table import markdown, markdown_table
from eagle_decoding.files import write_text

PICTURES = {  # by the key that tells kinds of results apart
    "rows": ("share-of-ceiling",),
    "files": ("round-breakdown", "acceptance-by-depth", "speed-against-tree-size"),
    "growth": ("growth",),
}


def main(
    out: Path, results: Annotated[list[Path], typer.Argument(help="Files that the benchmarks wrote, of any kind.")]
) -> None:
    parts = ["# Benchmarks", "", "Written by `make bench-report`; [README.md](README.md) says how to read the figures."]
    for file in results:
        result = read_json(file, "machine")
        links = [link for link in pictures(result, out) if link not in parts]  # drawn of the first file of a kind
        lines = [line for link in links for line in ("", link)]
        parts += ["", f"## {file.stem}", "", f"Raw: [{file.name}]({file.name}).", *lines, ""]
        parts += section(result)
    write_text(out, "\n".join(parts) + "\n")
    print(out)


def section(result: dict[str, Any]) -> list[str]:
    """The tables of one result; raises ValueError for a kind that has none."""
    if "rows" in result:
        return markdown(result).splitlines()
    label = f"Machine: {result['machine']['label']}, commit {result['machine']['commit']}."
    if "growth" in result:
        return [label, "", *markdown_table(*growth_lines(result))]
    if "files" not in result:
        raise ValueError(f"No table is made of a result with {', '.join(result)}: leave the file out.")
    lines = [label]
    for title, headings, rows in all_tables(result):
        lines += ["", f"### {title}", "", *markdown_table(headings, rows)]
    return [*lines, "", *(f"- {note}" for note in footnotes(result))]


def pictures(result: dict[str, Any], out: Path) -> list[str]:
    """Links to the pictures of this kind of result that lie beside the document."""
    names = [name for kind, names in PICTURES.items() if kind in result for name in names]
    found = [name for name in names if (out.parent / "pictures" / f"{name}.svg").is_file()]
    return [f"![{name}](pictures/{name}.svg)" for name in found]


if __name__ == "__main__":
    command.run(main)
