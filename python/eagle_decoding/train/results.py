"""The answers of an evaluation on disk, written again after each of them, so that it can be stopped and resumed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from eagle_decoding.files import write_text
from eagle_decoding.stats import Stats
from eagle_decoding.train.acceptances import Acceptances, Table
from eagle_decoding.train.errors import DataError

Key = tuple[str, str, str]  # file, question, way of decoding


class Results:
    """A JSON file of answers, and what it holds so far.

    settings: what the answers depend on
    made_by:  the machine, the versions and the command, for the file
    Raises DataError for a file that is no such result, and for one with other settings.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], made_by: dict[str, Any]):
        self.path, self.settings, self.made_by = Path(path), settings, made_by
        self.answers: dict[Key, dict[str, Any]] = {}
        if self.path.exists():
            self.resume()

    def resume(self) -> None:
        """Takes over the answers of the file."""
        try:
            stored = json.loads(self.path.read_text())
            before, answers = stored["settings"], {self.key(**answer): answer for answer in stored["answers"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} does not hold results of this command ({type(error).__name__}: {error}); remove it or "
                "give another --out."
            ) from error
        different = [name for name in self.settings if before.get(name) != self.settings[name]]
        if different:
            raise DataError(f"{self.path} holds results with other {', '.join(different)}; give another --out.")
        self.answers = answers

    @staticmethod
    def key(file: str, question: str, arm: str, **counts: Any) -> Key:
        return file, question, arm

    def add(self, file: str, question: str, arm: str, stats: Stats) -> None:
        counts = {"rounds": stats.rounds, "tokens": stats.tokens, "accepted_by_depth": stats.accepted_by_depth}
        self.answers[file, question, arm] = {"file": file, "question": question, "arm": arm, **counts}
        self.write()

    def write(self, **more: Any) -> None:
        """Writes everything. more: further entries of the file."""
        result = {"machine": self.made_by, "settings": self.settings, "answers": list(self.answers.values()), **more}
        write_text(self.path, json.dumps(result, indent=1) + "\n")

    def table(self, asked: dict[str, list[str]]) -> Table:
        """Counts of the questions that were asked, keys by file; of files without an answer nothing."""
        table: Table = {}
        for (file, question, arm), answer in self.answers.items():
            if question in asked.get(file, ()):
                cell = table.setdefault(file, {}).setdefault(arm, Acceptances())
                cell.add(answer["rounds"], answer["tokens"], answer["accepted_by_depth"])
        return table


def fingerprint(folder: str | Path) -> str:
    """A hash of the files of a head, so that results of another head under the same name are not continued."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).iterdir()):
        if file.suffix in (".safetensors", ".bin", ".pt", ".json"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
