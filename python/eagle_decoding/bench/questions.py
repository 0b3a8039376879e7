"""Question files of the EAGLE papers and of Spec-Bench: one JSON object a line, `turns` holds the user's turns."""

import json
from pathlib import Path


def read_questions(folder: Path, limit: int) -> list[tuple[str, int, str]]:
    """(file name, index, first turn) of the first `limit` questions of every .jsonl file.

    Raises ValueError when the folder has none, or a line is not such a question.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise ValueError(f"No .jsonl question file in {folder}: pass the folder that holds them as --data.")
    questions = []
    for file in files:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
        for index, line in enumerate(lines[:limit]):
            try:
                questions.append((file.stem, index, str(json.loads(line)["turns"][0])))
            except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
                raise ValueError(
                    f'{file}, question {index + 1} is not a JSON object with "turns": [text, ...].'
                ) from error
    return questions
