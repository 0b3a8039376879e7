"""The measurements on disk, one line each, so that an interrupted benchmark goes on where it stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from eagle_decoding.bench.measure import Key, Record
from eagle_decoding.files import cut_torn_line, whole_lines, write_text

NAME = "measurements.jsonl"
T = TypeVar("T")


def as_record(fields: dict[str, Any]) -> Record:
    return Record(**{**fields, "key": Key(**fields["key"])})


class Journal:
    """Appends to DIR/measurements.jsonl, whose first line holds the settings that all measurements share.

    Raises ValueError when the folder holds measurements with other settings, or a damaged line.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        self.records: dict[Key, Record] = {}
        lines = whole_lines(self.path)
        if not lines:
            write_text(self.path, json.dumps(settings) + "\n")
            return
        before = self.parsed(1, lines[0], dict)
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{folder} holds measurements with {name} {before.get(name)}, not {settings[name]}: change --out."
            )
        for number, line in enumerate(lines[1:], 2):
            record = self.parsed(number, line, as_record)
            self.records[record.key] = record
        cut_torn_line(self.path)

    def parsed(self, number: int, line: str, convert: Callable[[Any], T]) -> T:
        try:
            return convert(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            remedy = "delete the file" if number == 1 else "delete the line, which is then measured again"
            raise ValueError(f"Line {number} of {self.path} is damaged ({error}): {remedy}.") from error

    def known(self, key: Key, spec: str) -> bool:
        """Whether this was measured already. Raises ValueError when it was, with another draft under the same name."""
        record = self.records.get(key)
        if record is not None and record.spec != spec:
            raise ValueError(
                f"{self.path} has {key.method} measured as {record.spec}, not {spec}: give the draft another name."
            )
        return record is not None

    def add(self, record: Record) -> None:
        self.records[record.key] = record
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
