"""One JSON of everything a run of the suite has measured so far, and its claims: python -m bench.gpu.collect PARTS OUT.

Imports nothing large: the suite runs it after every phase, so that a run which is cut short leaves what it has.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import command
from bench.gpu.claims import claims
from eagle_decoding.files import write_text


def read_parts(folder: Path) -> dict[str, Any]:
    """What each command wrote, by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def read_phases(file: Path) -> list[dict[str, Any]]:
    """Lines of name, exit status and seconds."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return [{"phase": name, "status": int(status), "seconds": int(seconds)} for name, status, seconds in lines]


def main(parts: Path, out: Path) -> None:
    written = read_parts(parts)
    found = list(claims(written))
    held = [asdict(claim) | {"holds": claim.holds} for claim in found]
    result = {"phases": read_phases(parts / "phases.txt"), "claims": held, **written}
    write_text(out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for claim in found:
        print(claim.line())


if __name__ == "__main__":
    command.run(main)
