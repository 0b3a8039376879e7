"""What `eagle-decoding info` shows: what was built, where it runs, which versions."""

import platform
from importlib.metadata import version

import torch
import transformers
from rich.table import Table

import eagle_kernels
from eagle_decoding.terminal.gguf import cache_folder


def info_table() -> Table:
    """One fact a row."""
    built = eagle_kernels.info()
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("eagle-kernels", version("eagle-kernels"))
    table.add_row("kernels built", "C++ and CUDA" if built["cuda_kernels"] else "C++ only")
    table.add_row("GPU", built["gpu"] or "none that torch can use")
    table.add_row("CPU", f"{platform.machine()}, {torch.get_num_threads()} threads, kernels for {built['cpu_kernels']}")
    table.add_row("torch", built["torch"])
    table.add_row("transformers", transformers.__version__)
    table.add_row("triton", built["triton"] or "not installed")
    table.add_row("Python", platform.python_version())
    table.add_row("converted models", str(cache_folder()))
    return table
