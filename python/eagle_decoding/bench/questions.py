"""Question files of the EAGLE papers and of Spec-Bench: one JSON object a line, `turns` holds the user's turns."""

import json
from pathlib import Path


def read_questions(folder: Path, limit: int | None = None) -> dict[str, list[str]]:
    """First turns by file name, in file order: the first `limit` questions of every .jsonl file, or all of them.

    Raises ValueError when the folder has none, or a line is not such a question.
    """
    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise ValueError(f"No .jsonl question file in {folder}: give the folder that holds them.")
    return {file.stem: first_turns(file, limit) for file in files}


def first_turns(file: Path, limit: int | None) -> list[str]:
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    turns = []
    for index, line in enumerate(lines[:limit]):
        try:
            turns.append(str(json.loads(line)["turns"][0]))
        except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f'{file}, question {index + 1} is not a JSON object with "turns": [text, ...].') from error
    return turns
