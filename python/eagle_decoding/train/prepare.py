"""Conversations to token rows: render with the target's chat template and mark what the assistant wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from eagle_decoding.train.data import DataError

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def read_messages(path: str | Path) -> Iterator[list[dict[str, str]]]:
    """Conversations of a JSONL file: `messages` (role, content), `conversations` (from, value), or `prompt` and
    `response`."""
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "prompt" in row:
                yield [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["response"]},
                ]
            else:
                turns = row["messages"] if "messages" in row else row["conversations"]
                yield [
                    {"role": ROLES[turn.get("role") or turn["from"]], "content": turn.get("content") or turn["value"]}
                    for turn in turns
                ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Line {number} of {path} is no conversation ({error!r}); "
                "it needs messages, conversations, or prompt and response."
            ) from None


def tokenise(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """(ids, supervised): supervised tokens are those that an assistant turn adds to the rendered conversation before
    it.

    The end-of-turn token counts, since drafting it saves a round. Raises DataError if the template rewrites earlier
    turns.
    """
    ids: list[int] = []
    supervised: list[bool] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _render(tokenizer, messages[:index], True)
        full = _render(tokenizer, messages[: index + 1], False)
        if prompt[: len(ids)] != ids or full[: len(prompt)] != prompt:
            raise DataError("The chat template changes earlier turns as a conversation grows; give one row per answer.")
        supervised += [False] * (len(prompt) - len(ids)) + [True] * (len(full) - len(prompt))
        ids = full
    return ids, supervised


def prepare(tokenizer: PreTrainedTokenizerBase, paths: list[str], out: str | Path, max_length: int) -> dict[str, Any]:
    """Write one token shard of all conversations, each cut at max_length tokens, and say what is in it.

    Returns rows, tokens, supervised (share of tokens), dropped (rows without a supervised token after the cut) and
    sample (the first row's supervised text). Raises DataError if nothing is supervised.
    """
    ids: list[int] = []
    mask: list[bool] = []
    lengths: list[int] = []
    dropped = 0
    for path in paths:
        for messages in read_messages(path):
            row_ids, row_mask = tokenise(tokenizer, messages)
            row_ids, row_mask = row_ids[:max_length], row_mask[:max_length]
            if not any(row_mask):
                dropped += 1
                continue
            ids += row_ids
            mask += row_mask
            lengths.append(len(row_ids))
    if not lengths:
        raise DataError(f"None of the rows in {', '.join(paths)} has a supervised token; check the conversations.")
    sample = tokenizer.decode([i for i, flag in zip(ids[: lengths[0]], mask, strict=False) if flag])
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            "ids": torch.tensor(ids, dtype=torch.int32),
            "supervised": torch.tensor(mask),
            "length": torch.tensor(lengths, dtype=torch.int32),
        },
        out,
    )
    share = sum(mask) / len(mask)
    return {"rows": len(lengths), "tokens": len(ids), "supervised": share, "dropped": dropped, "sample": sample}


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    return tokenizer(text, add_special_tokens=False)["input_ids"]
