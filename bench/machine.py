"""The machine and the versions that a measurement belongs to."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

import eagle_kernels


def machine(device: str) -> dict[str, Any]:
    """What goes into every result file; `label` is the line that pictures carry."""
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "transformers": transformers.__version__,
        "commit": commit(),
        **eagle_kernels.info(),
    }
    if device == "cuda":
        facts["compute_capability"] = list(torch.cuda.get_device_capability())
        facts["gpu_state"] = gpu_state()
    hardware = facts["gpu"] if device == "cuda" else f"{facts['processor']}, {facts['cores']} cores"
    facts["label"] = f"{hardware} · torch {facts['torch']} · transformers {facts['transformers']} · {facts['date']}"
    return facts


def processor() -> str:
    """The model name that Linux reports, with the vector units that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {line.split(":")[0].strip(): line.split(":")[-1].strip() for line in lines if ":" in line}
    flags = fields.get("flags", "").split()
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return f"{fields.get('model name', platform.machine())} ({', '.join(units)})" if units else platform.machine()


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
