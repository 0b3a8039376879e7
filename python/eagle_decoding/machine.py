"""What a result file says of its making: the machine, the versions, the date and the command."""

import datetime
import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import eagle_kernels


def machine(device: str) -> dict[str, Any]:
    """What goes into every result file; `label` is the line that pictures carry. Without host names and outer paths."""
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": command_line(sys.orig_argv),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "python": platform.python_version(),
        "transformers": transformers.__version__,
        **eagle_kernels.info(),
    }
    if device == "cuda":
        facts["compute_capability"] = list(torch.cuda.get_device_capability())
    hardware = facts["gpu"] if device == "cuda" else f"{facts['processor']}, {facts['cores']} cores"
    facts["label"] = f"{hardware} · torch {facts['torch']} · transformers {facts['transformers']} · {facts['date']}"
    return facts


def command_line(words: list[str]) -> str:
    """A command as it was given, an interpreter in front of a script left out, and of absolute paths the last part."""
    script = len(words) > 1 and not words[1].startswith("-")
    return shlex.join(without_folders(word) for word in words[1 if script else 0 :])


def without_folders(word: str) -> str:
    """An argument with absolute paths cut to their last part, behind = or in a list as well."""
    return "".join(Path(part).name if part.startswith("/") else part for part in re.split(r"([=,:+])", word))


def cores() -> int | None:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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
