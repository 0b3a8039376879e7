"""Where benchmarks print their tables: the terminal as it is, and 180 columns where the output is piped."""

import sys

from rich.console import Console


def console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 180)
