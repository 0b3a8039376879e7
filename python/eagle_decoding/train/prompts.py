"""Prompt files, and how a chat template turns them into tokens for the target to continue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from eagle_decoding.train.errors import DataError, NoTemplateError

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
PLACEHOLDER = "QUESTION"
SHOWN_PROBLEMS = 5

Message = dict[str, str]
T = TypeVar("T")


def asked(row: Any) -> list[Message]:
    """What the target is to answer: the user's turns of a row, after a system message where there is one.

    row: `prompt` (one turn), `turns` (the user's turns), `messages` (role, content) or `conversations` (from, value);
         assistant messages are left out, the target writes its own.
    Raises DataError for a row of another form.
    """
    try:
        if "prompt" in row:
            messages = [{"role": "user", "content": row["prompt"]}]
        elif "turns" in row:
            messages = [{"role": "user", "content": turn} for turn in row["turns"]]
        else:
            messages = [m for m in chat_messages(row) if m["role"] != "assistant"]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"it needs prompt, turns, messages or conversations ({error!r})") from None
    if not any(m["role"] == "user" for m in messages) or not all(m["content"].strip() for m in messages):
        raise DataError("a turn in it is empty")
    return messages


def chat_messages(row: Any) -> list[Message]:
    """The messages of a `messages` or `conversations` row, in the one spelling that chat templates know."""
    return [
        {
            "role": ROLES[turn.get("role") or turn["from"]],
            "content": turn["content"] if "content" in turn else turn["value"],
        }
        for turn in (row["messages"] if "messages" in row else row["conversations"])
    ]


def read_prompts(paths: list[str], warn: Callable[[str], None]) -> list[list[Message]]:
    """What the rows of prompt files ask, in order.

    warn: told about rows that cannot be used, which are left out. Raises DataError if a file has no usable row.
    """
    prompts: list[list[Message]] = []
    for path in paths:
        usable = list(UsableRows(path, asked, warn))
        if not usable:
            raise DataError(f"{path} has no row with a prompt; a line holds prompt, turns, messages or conversations.")
        prompts += usable
    return prompts


def read_questions(paths: list[str], limit: int | None, warn: Callable[[str], None]) -> dict[str, list[list[Message]]]:
    """The first `limit` questions of each file by the file's name without its ending; as `read_prompts`."""
    stems = [Path(path).stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise DataError(f"Two question files are called {twice}, and results go by that name; rename one of them.")
    return {stem: read_prompts([path], warn)[:limit] for stem, path in zip(stems, paths, strict=True)}


class UsableRows(Generic[T]):
    """convert(row) of every row of a JSONL file; rows that are no JSON or that convert refuses are told to `warn`.

    left_out: how many those are, as far as the file was read.
    """

    def __init__(self, path: str | Path, convert: Callable[[Any], T], warn: Callable[[str], None]):
        self.path, self.convert, self.warn, self.left_out = path, convert, warn, 0

    def __iter__(self) -> Iterator[T]:
        if not Path(self.path).is_file():
            raise DataError(f"There is no file {self.path}; name a JSONL file.")
        with open(self.path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    converted = self.convert(json.loads(line))
                except NoTemplateError:
                    raise
                except ValueError as error:
                    reason = f"it is no JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
                    self.left_out += 1
                    if self.left_out <= SHOWN_PROBLEMS:
                        self.warn(f"Line {number} of {self.path} was left out: {reason}.")
                    continue
                yield converted
        if self.left_out > SHOWN_PROBLEMS:
            self.warn(f"{self.left_out} lines of {self.path} were left out altogether.")


class ChatFormat:
    """A tokenizer's chat template, as the pieces that generation puts between texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if tokenizer.chat_template is None:
            raise DataError("The target's tokenizer has no chat template; answers to prompts need a chat model.")
        self.tokenizer = tokenizer

    def opening(self, messages: list[Message]) -> list[int]:
        """Tokens up to where the answer to the last message begins."""
        return self.encode(self.render(messages))

    def following(self, messages: list[Message], ended: int) -> list[int] | None:
        """Tokens between an answer and the answer to the next message.

        messages: the conversation, its last two being the answer and the user's next message
        ended:    the token that ended the answer: it is not repeated
        Returns None if the template writes the earlier turns differently now that there are more.
        """
        before, answer = self.render(messages[:-2]), messages[-2]["content"]
        text = self.render(messages)
        if not text.startswith(before + answer):
            return None
        between, end = text[len(before + answer) :], self.tokenizer.decode([ended])
        return self.encode(between.lstrip().removeprefix(end) if between.lstrip().startswith(end) else between)

    def question_opening(self) -> list[int]:
        """Tokens up to where the user's first message begins: a chat model continues them with a question of its own.

        Magpie (Xu et al. 2024, arXiv 2406.08464).
        """
        return self.encode(self.render([{"role": "user", "content": PLACEHOLDER}]).partition(PLACEHOLDER)[0])

    def render(self, messages: list[Message]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)
