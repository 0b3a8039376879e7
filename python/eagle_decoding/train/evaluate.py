"""What a head is worth: tokens per round and survival by depth on questions, chain and tree, greedy and sampled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from eagle_decoding.config import TreeConfig
from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.drafts import load_draft
from eagle_decoding.generation import at_temperature
from eagle_decoding.stats import Stats
from eagle_decoding.train.acceptances import Table
from eagle_decoding.train.errors import DataError
from eagle_decoding.train.prompts import ChatFormat, Message
from eagle_decoding.train.results import Results


@dataclass(frozen=True)
class Arm:
    """One way of decoding every question. temperature 0 is greedy."""

    shape: str
    temperature: float
    tree: TreeConfig

    @property
    def name(self) -> str:
        return f"{self.shape}, T={self.temperature:g}"


def arms(tree: TreeConfig, temperatures: tuple[float, ...] = (0.0, 1.0)) -> list[Arm]:
    """The tree and a chain as deep as it is, at every temperature."""
    chain = TreeConfig(num_nodes=tree.max_depth + 1, max_depth=tree.max_depth, topk=1)
    return [Arm(shape, t, config) for t in temperatures for shape, config in (("chain", chain), ("tree", tree))]


def decoders(target: PreTrainedModel, draft: str | Path, chosen: list[Arm]) -> dict[str, SpeculativeDecoder]:
    """A decoder for every shape of the arms."""
    trees = {arm.shape: arm.tree for arm in chosen}
    return {shape: SpeculativeDecoder(target, load_draft(draft, target, tree)) for shape, tree in trees.items()}


@dataclass(frozen=True)
class Question:
    """A question as the target reads it. key: what results call it. seed: of sampled answers, its place in the file."""

    file: str
    prompt: list[int]
    seed: int

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.prompt).encode()).hexdigest()[:16]


def first_questions(chat: ChatFormat, conversations: dict[str, list[list[Message]]]) -> list[Question]:
    """Every conversation up to its first user turn, file by file."""
    questions = []
    for file, rows in conversations.items():
        for place, messages in enumerate(rows, 1):
            asked = next(i for i, message in enumerate(messages) if message["role"] == "user")
            questions.append(Question(file, chat.opening(messages[: asked + 1]), place))
    return questions


def answer(decoder: SpeculativeDecoder, question: Question, temperature: float, max_new_tokens: int) -> Stats:
    """What decoding one question took."""
    prompt = torch.tensor([question.prompt], device=decoder.target.device)
    settings = at_temperature(temperature)
    decoder.generate(prompt, max_new_tokens=max_new_tokens, seed=question.seed, **settings)
    return decoder.stats


def evaluate(
    decoders: dict[str, SpeculativeDecoder],
    chat: ChatFormat,
    conversations: dict[str, list[list[Message]]],
    chosen: list[Arm],
    max_new_tokens: int,
    results: Results,
    report: Callable[[int, int], None] = lambda rows, tokens: None,
) -> Table:
    """Answers the first turn of every conversation with every arm, batch 1, and returns the counts by file and arm.

    decoders:      by the arms' shapes
    conversations: messages by file name; one that leaves no room for an answer in the target's context is passed over
    report:        called after each answer with 1 and its tokens
    Raises DataError if none fits.
    """
    questions = first_questions(chat, conversations)
    for question in questions:
        for arm in chosen:
            decoder, tokens = decoders[arm.shape], 0
            fits = len(question.prompt) + max_new_tokens <= decoder.target.config.max_position_embeddings
            if fits and (question.file, question.key, arm.name) not in results.answers:
                stats = answer(decoder, question, arm.temperature, max_new_tokens)
                results.add(question.file, question.key, arm.name, stats)
                tokens = stats.tokens
            report(1, tokens)
    table = results.table({file: [q.key for q in questions if q.file == file] for file in conversations})
    if not table:
        raise DataError(
            f"No question leaves room for {max_new_tokens} new tokens in the target's context; give shorter questions "
            "or a lower --max-new-tokens."
        )
    return table
