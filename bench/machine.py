"""The machine, the versions, the commit and the command that a measurement belongs to."""

import subprocess
from pathlib import Path
from typing import Any

from eagle_decoding import machine as library


def machine(device: str) -> dict[str, Any]:
    """What goes into every result file here."""
    facts = library.machine(device) | {"commit": commit()}
    return facts | {"gpu_state": gpu_state()} if device == "cuda" else facts


def commit() -> str | None:
    """The checkout's commit, with a + when files differ from it; None outside a checkout, or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return run.stdout.strip() or None


def gpu_state() -> str | None:
    """Clocks, power and temperature; None where nvidia-smi is missing or cannot say."""
    query = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
