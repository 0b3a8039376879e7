"""Result files: JSON with rounded numbers, and read back into rows."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from bench.measure import Row
from bench.timing import Samples
from eagle_decoding.files import write_text
from eagle_decoding.floor.ceilings import Ceilings


def write_json(result: dict[str, Any], path: Path) -> None:
    """Numbers to four digits, whole or not at all."""
    write_text(path, on_few_lines(json.dumps(rounded(result), indent=1, ensure_ascii=False)) + "\n")


def on_few_lines(text: str) -> str:
    """Innermost lists on one line each; a line break between quotes is escaped, so none is touched."""
    return re.sub(r"\[\n[^\[\]{}]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)


def rounded(value: Any) -> Any:
    """Floats to four significant digits: more is noise, and files stay readable."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Raises ValueError, in one sentence, for a file that is not a result of the kind that holds the needed keys."""
    try:
        result = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: give a file that python -m bench wrote.") from error
    missing = [key for key in needed if key not in result]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}: it is another kind of result.")
    return result


def rows_of(result: dict[str, Any]) -> list[Row]:
    rows = []
    for fields in result["rows"]:
        samples = {name: Samples(**lists) for name, lists in fields["samples"].items()}
        rows.append(Row(**{**fields, "samples": samples}))
    return rows


def ceilings_of(result: dict[str, Any]) -> dict[int, Ceilings]:
    """The ceilings by number of threads: medians over the passes of the run."""
    by_threads: dict[int, list[dict[str, Any]]] = {}
    for measured in result["ceilings"]:
        by_threads.setdefault(measured["threads"], []).append(measured)
    figures = ("copy_bandwidth", "read_bandwidth", "flops_per_second")
    return {
        threads: Ceilings(**{**all_[0], **{name: statistics.median(m[name] for m in all_) for name in figures}})
        for threads, all_ in by_threads.items()
    }
