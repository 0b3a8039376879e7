"""The two consoles: answers and reports go to the standard output, notices and errors to the standard error."""

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def notice(text: str) -> None:
    err.print(text, style="dim", markup=False)
