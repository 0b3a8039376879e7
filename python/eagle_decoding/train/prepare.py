"""Conversations to token rows: render with the target's chat template and mark what the assistant wrote."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from eagle_decoding.train.errors import DataError, NoTemplateError
from eagle_decoding.train.files import save_shard
from eagle_decoding.train.prompts import Message, UsableRows, chat_messages

TokenRow = tuple[list[int], list[bool]]


def token_rows(tokenizer: PreTrainedTokenizerBase, row: Any) -> list[TokenRow]:
    """(ids, supervised) of a row: `messages` (role, content), `conversations` (from, value), `prompt` and `response`,
    or `text`, which is supervised from its second token on.

    A conversation is one row where the template leaves earlier turns as they were, else one row per answer.
    Raises DataError for a row of another form, and for a template that no answer can be told apart in.
    """
    try:
        if "text" in row:
            ids = tokenizer(row["text"], add_special_tokens=True)["input_ids"]
            return [(ids, [False] + [True] * (len(ids) - 1))] if ids else []
        if "prompt" in row:
            messages = [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["response"]},
            ]
        else:
            messages = chat_messages(row)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"it needs messages, conversations, text, or prompt and response ({error!r})") from None
    try:
        return [tokenise(tokenizer, messages)]
    except DataError:
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        return [tokenise(tokenizer, messages[: i + 1], first=i) for i in answers]


def tokenise(tokenizer: PreTrainedTokenizerBase, messages: list[Message], first: int = 0) -> TokenRow:
    """(ids, supervised): supervised tokens are those that an assistant turn adds to the rendered conversation before
    it.

    The end-of-turn token counts, since drafting it saves a round. first: answers before this message are not
    supervised. Raises DataError if the template rewrites earlier turns.
    """
    ids: list[int] = []
    supervised: list[bool] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index < first:
            continue
        prompt = _render(tokenizer, messages[:index], True)
        full = _render(tokenizer, messages[: index + 1], False)
        if prompt[: len(ids)] != ids or full[: len(prompt)] != prompt:
            raise DataError("the chat template changes what comes before an answer once the answer is there")
        supervised += [False] * (len(prompt) - len(ids)) + [True] * (len(full) - len(prompt))
        ids = full
    return ids, supervised


def prepare(
    tokenizer: PreTrainedTokenizerBase,
    paths: list[str],
    out: str | Path,
    max_length: int,
    warn: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Write one token shard of all rows, each cut at max_length tokens, and say what is in it.

    warn: told, with the line number, about rows that cannot be read; they are left out.
    Returns rows, tokens, supervised (share of tokens), left_out (lines that cannot be read), unanswered (rows without a
    supervised token after the cut, left out too) and sample (the first row's supervised text). Raises DataError if
    nothing is supervised, for a conversation without a chat template, and on a full disk.
    """
    ids: list[int] = []
    mask: list[bool] = []
    lengths: list[int] = []
    unanswered = left_out = 0
    for path in paths:
        usable = UsableRows(path, lambda row: token_rows(tokenizer, row), warn)
        for row_ids, row_mask in chain.from_iterable(usable):
            row_ids, row_mask = row_ids[:max_length], row_mask[:max_length]
            if not any(row_mask):
                unanswered += 1
                continue
            ids += row_ids
            mask += row_mask
            lengths.append(len(row_ids))
        left_out += usable.left_out
    if not lengths:
        raise DataError(
            f"None of the rows in {', '.join(paths)} has a supervised token: {left_out} lines were left out, "
            f"{unanswered} rows hold no answer within {max_length} tokens; check the conversations."
        )
    sample = tokenizer.decode([i for i, flag in zip(ids[: lengths[0]], mask, strict=False) if flag])
    save_shard(
        {
            "ids": torch.tensor(ids, dtype=torch.int32),
            "supervised": torch.tensor(mask),
            "length": torch.tensor(lengths, dtype=torch.int32),
        },
        out,
    )
    share = sum(mask) / len(mask)
    facts = {"rows": len(lengths), "tokens": len(ids), "supervised": share, "sample": sample}
    return facts | {"left_out": left_out, "unanswered": unanswered}


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], prompt: bool) -> list[int]:
    if tokenizer.chat_template is None:
        raise NoTemplateError(
            "The target's tokenizer has no chat template; for conversations name a chat model, or give rows of `text`."
        )
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except TemplateError as error:
        raise DataError(f"the chat template refuses it ({error})") from None
    return tokenizer(text, add_special_tokens=False)["input_ids"]
