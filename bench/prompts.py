"""Questions as prompts: in the tokenizer's chat template, and short enough for the target's context."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eagle_decoding.bench.questions import read_questions
from eagle_decoding.terminal.console import notice


def chat_prompt(tokenizer: Any, question: str) -> Tensor:
    """[1, tokens] int64: the question as a user turn in the tokenizer's chat template, ready for the answer."""
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return torch.tensor([ids])


def prompts_of(tokenizer: Any, folder: Path, count: int, limit: int) -> tuple[list[tuple[str, str, Tensor]], int]:
    """(file name, question, prompt) of the first `count` questions of each file, and how many prompts were cut.

    A prompt of more than `limit` tokens is cut to its first ones, of which one sentence on the standard error tells.
    """
    asked = [(name, text) for name, questions in read_questions(folder, count).items() for text in questions]
    whole = [(name, text, chat_prompt(tokenizer, text)) for name, text in asked]
    num_cut = sum(prompt.shape[1] > limit for _, _, prompt in whole)
    if num_cut:
        notice(
            f"{num_cut} of {len(whole)} prompts have more than {limit} tokens, which is what the target's context has "
            "beside the answer, and are cut to so many: shorten the questions, or ask for fewer new tokens."
        )
    return [(name, text, prompt[:, :limit]) for name, text, prompt in whole], num_cut
