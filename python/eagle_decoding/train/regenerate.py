"""The target answers prompts, so that a head learns from the very text that it will have to predict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.generation import end_tokens
from eagle_decoding.train.answering import Answering
from eagle_decoding.train.data import TokenRows
from eagle_decoding.train.dialogue import Dialogue, Dialogues
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.files import is_whole, keep_plan, read_shard, save_shard
from eagle_decoding.train.prompts import ChatFormat, Message

ROWS_PER_PART = 256


@dataclass(frozen=True)
class AnswerOptions:
    """How prompts are answered.

    max_new_tokens: longest answer. greedy: share of conversations answered at temperature 0; temperature: of the
    others. max_length: longest row, in tokens, and never beyond the target's context; longer prompts are left out.
    seed: of order, shares and sampling.
    """

    max_new_tokens: int = 256
    greedy: float = 0.5
    temperature: float = 0.8
    max_length: int = 2048
    seed: int = 0


def regenerate(
    decoder: SpeculativeDecoder,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[Message] | None],
    options: AnswerOptions,
    answering: Answering,
    out: str | Path,
    report: Callable[[int, int], None] = lambda rows, tokens: None,
) -> dict[str, int]:
    """Answers every prompt and writes one token shard; a run that was killed goes on where it was.

    prompts: messages without the assistant's, None where the target writes the question itself. answering: how
    requests are decoded. out: the shard. Parts of 256 conversations, drawn at random so that any number of them is a
    fair sample, are token shards too: they lie in `<out>.parts` until the last one is done and all are merged.
    report: called with conversations finished and tokens written since the last call.

    Returns prompts, rows, tokens and supervised (counts; repeated prompts and those over max_length give no row).
    Raises DataError if the shard is there already, if the parts belong to other prompts or options, if nothing was
    answered, and on a full disk.
    """
    if not prompts:
        raise DataError("There is no prompt left to answer; give prompt files, or a number of --self-asked questions.")
    longest = min(options.max_length, decoder.target.config.max_position_embeddings)
    out = Path(out)
    folder = out.with_name(out.name + ".parts")
    if out.exists() and not folder.exists():
        raise DataError(f"{out} exists already and is complete; give another --out, or delete it to begin again.")
    _keep_plan(folder / "plan.json", prompts, options, decoder)
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(options.seed)).tolist()
    paths: list[Path] = []
    for start in range(0, len(order), ROWS_PER_PART):
        keys = order[start : start + ROWS_PER_PART]
        paths.append(folder / f"{len(paths):05d}.safetensors")
        if is_whole(paths[-1]):
            report(len(keys), 0)
            continue
        chat = ChatFormat(tokenizer)
        dialogues = [_dialogue(key, prompts[key], options) for key in keys]
        work = Dialogues(chat, dialogues, end_tokens(decoder.target), options.max_new_tokens, longest)
        requests = work.requests()
        report(len(keys) - len(requests), 0)
        answering(requests, work.finished, report)
        save_shard(_shard(dialogues, decoder.target.config.vocab_size), paths[-1])
    merged = _merge(paths)
    if not len(merged["length"]):
        shutil.rmtree(folder)
        raise DataError(
            f"None of the {len(prompts)} prompts was answered: with answers of {options.max_new_tokens} tokens they "
            f"may be over {longest}; ask for shorter ones."
        )
    save_shard(merged, out)
    shutil.rmtree(folder)
    counts = {
        "rows": len(merged["length"]),
        "tokens": len(merged["ids"]),
        "supervised": int(merged["supervised"].sum()),
    }
    return {"prompts": len(prompts), **counts}


def without_answered(
    prompts: list[list[Message] | None], tokenizer: PreTrainedTokenizerBase, answered: TokenRows
) -> list[list[Message] | None]:
    """The prompts whose tokens up to the first answer begin no row of other shards."""
    chat = ChatFormat(tokenizer)
    known = set()
    for row in range(len(answered)):
        span = slice(int(answered.starts[row]), int(answered.starts[row + 1]))
        first = int(answered.supervised[span].int().argmax())
        known.add(tuple(answered.ids[span][:first].tolist()))

    def is_known(messages: list[Message]) -> bool:
        asked = next(i for i, m in enumerate(messages) if m["role"] == "user")
        return tuple(chat.opening(messages[: asked + 1])) in known

    return [messages for messages in prompts if messages is None or not is_known(messages)]


def _dialogue(key: int, messages: list[Message] | None, options: AnswerOptions) -> Dialogue:
    """The conversation of one prompt; its temperature depends on the seed and its place alone."""
    seed = options.seed * 2**32 + key
    greedy = torch.rand(1, generator=torch.Generator().manual_seed(seed)).item() < options.greedy
    return Dialogue(key, 0.0 if greedy else options.temperature, seed, list(messages or []), asks=messages is None)


def _shard(dialogues: list[Dialogue], vocab_size: int) -> dict[str, Tensor]:
    """Token rows of the conversations that were answered; `prompt_len` counts the tokens before the first answer."""
    done = [dialogue for dialogue in dialogues if dialogue.ids]
    return {
        "ids": torch.tensor(
            [i for d in done for i in d.ids], dtype=torch.uint16 if vocab_size <= 2**16 else torch.int32
        ),
        "supervised": torch.tensor([flag for d in done for flag in d.supervised], dtype=torch.bool),
        "length": torch.tensor([len(d.ids) for d in done], dtype=torch.int32),
        "prompt_len": torch.tensor([d.supervised.index(True) for d in done], dtype=torch.int32),
        "temperature": torch.tensor([d.temperature for d in done]),
        "prompt": torch.tensor([d.key for d in done], dtype=torch.int32),
    }


def _merge(paths: list[Path]) -> dict[str, Tensor]:
    """The rows of all parts in the order of the prompts; of rows with the same prompt the first stays."""
    rows, seen = [], set()
    for part in map(read_shard, paths):
        for row in _rows(part):
            prompt = tuple(row["ids"][: int(row["prompt_len"])].tolist())
            if prompt not in seen:
                rows.append(row)
            seen.add(prompt)
    rows.sort(key=lambda row: int(row["prompt"]))
    return {name: torch.cat([row[name].reshape(-1) for row in rows]) for name in rows[0]} if rows else part


def _rows(shard: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """A shard row by row."""
    ends = shard["length"].cumsum(0).tolist()
    for i, (end, length) in enumerate(zip(ends, shard["length"].tolist(), strict=True)):
        span = slice(end - length, end)
        yield {name: t[span] if name in ("ids", "supervised") else t[i] for name, t in shard.items()}


def _keep_plan(
    path: Path, prompts: list[list[Message] | None], options: AnswerOptions, decoder: SpeculativeDecoder
) -> None:
    """Writes down what the parts are parts of, or checks that they are parts of this run."""
    plan = dataclasses.asdict(options) | {
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "target": decoder.target.config._name_or_path,
        "dtype": str(decoder.target.dtype),
    }
    different = keep_plan(path, plan)
    if different:
        raise DataError(
            f"{path.parent} holds parts of a run with other {', '.join(different)}; "
            "give another --out, or delete that folder to begin again."
        )
