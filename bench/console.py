"""Where benchmarks print their tables: the terminal, taken to be 170 columns wide at least."""

from rich.console import Console

WIDTH = 170  # a table with every column; narrower, rich would cut the columns short


def console() -> Console:
    return Console(highlight=False, width=max(WIDTH, Console().width))
