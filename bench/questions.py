"""Question files in the EAGLE papers' format: one JSON object a line, `turns` holds the user's turns."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_questions(folder: Path, limit: int | None = None) -> dict[str, list[str]]:
    """First turns by file name, in file order; `limit` questions of each file."""
    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"No .jsonl question file in {folder}: pass the folder that holds them.")
    questions = {}
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        questions[file.stem] = [row["turns"][0] for row in rows[:limit]]
    return questions


def chat_prompt(tokenizer: Any, question: str) -> Tensor:
    """[1, tokens] int64: the question as a user turn in the tokenizer's chat template, ready for the answer."""
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return torch.tensor([ids])
