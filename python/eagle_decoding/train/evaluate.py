"""What a head is worth: tokens per round and survival by depth on questions, chain and tree, greedy and sampled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from eagle_decoding.config import TreeConfig
from eagle_decoding.decoder import SpeculativeDecoder
from eagle_decoding.drafts import load_draft
from eagle_decoding.files import write_text
from eagle_decoding.generation import at_temperature
from eagle_decoding.stats import Stats
from eagle_decoding.train.data import DataError
from eagle_decoding.train.prompts import ChatFormat, Message


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


@dataclass
class Acceptances:
    """Rounds of some answers. accepted_by_depth: entry d-1 counts rounds whose accepted path reached depth d."""

    rounds: int = 0
    tokens: int = 0
    accepted_by_depth: list[int] = field(default_factory=list)

    def add(self, rounds: int, tokens: int, accepted_by_depth: list[int]) -> None:
        self.rounds += rounds
        self.tokens += tokens
        self.accepted_by_depth += [0] * (len(accepted_by_depth) - len(self.accepted_by_depth))
        for depth, count in enumerate(accepted_by_depth):
            self.accepted_by_depth[depth] += count

    @property
    def survival(self) -> list[float]:
        """Share of rounds that reached each depth."""
        return [count / self.rounds for count in self.accepted_by_depth]

    @property
    def tokens_per_round(self) -> float:
        """Accepted drafts + 1, averaged over rounds; 1 where no round was needed."""
        return 1 + sum(self.survival) if self.rounds else 1.0


class Results:
    """Answers so far, in a JSON file that is rewritten after each of them, so that a run can be stopped and resumed.

    settings: what the answers depend on; a file with other settings is refused with a DataError.
    made_by: the machine, the versions and the command, for the file.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], made_by: dict[str, Any]):
        self.path, self.settings, self.made_by, self.answers = Path(path), settings, made_by, {}
        if not self.path.exists():
            return
        stored = json.loads(self.path.read_text())
        different = [name for name in settings if stored["settings"].get(name) != settings[name]]
        if different:
            raise DataError(f"{path} holds results with other {', '.join(different)}; give another --out.")
        self.answers = {self.key(answer): answer for answer in stored["answers"]}

    @staticmethod
    def key(answer: dict[str, Any]) -> tuple[str, str, str]:
        return answer["file"], answer["question"], answer["arm"]

    def add(self, file: str, question: str, arm: Arm, stats: Stats) -> None:
        counts = {"rounds": stats.rounds, "tokens": stats.tokens, "accepted_by_depth": stats.accepted_by_depth}
        answer = {"file": file, "question": question, "arm": arm.name, **counts}
        self.answers[self.key(answer)] = answer
        self.write()

    def write(self, **more: Any) -> None:
        """Writes everything. more: further entries of the file."""
        result = {"machine": self.made_by, "settings": self.settings, "answers": list(self.answers.values()), **more}
        write_text(self.path, json.dumps(result, indent=1) + "\n")

    def table(self, files: dict[str, list[str]]) -> dict[str, dict[str, Acceptances]]:
        """Counts by file and arm of the questions in `files` (keys by file)."""
        table: dict[str, dict[str, Acceptances]] = {}
        for answer in self.answers.values():
            if answer["question"] in files.get(answer["file"], ()):
                cell = table.setdefault(answer["file"], {}).setdefault(answer["arm"], Acceptances())
                cell.add(answer["rounds"], answer["tokens"], answer["accepted_by_depth"])
        return table


def decoders(target: PreTrainedModel, draft: str, chosen: list[Arm]) -> dict[str, SpeculativeDecoder]:
    """A decoder for every shape of the arms."""
    trees = {arm.shape: arm.tree for arm in chosen}
    return {shape: SpeculativeDecoder(target, load_draft(draft, target, tree)) for shape, tree in trees.items()}


def evaluate(
    decoders: dict[str, SpeculativeDecoder],
    chat: ChatFormat,
    questions: dict[str, list[list[Message]]],
    chosen: list[Arm],
    max_new_tokens: int,
    results: Results,
    report: Callable[[int, int], None] = lambda rows, tokens: None,
) -> dict[str, dict[str, Acceptances]]:
    """Answers the first turn of every question with every arm, batch 1, and returns the counts by file and arm.

    decoders: by the arms' shapes. questions: messages by file name; one that leaves no room for an answer in the
    target's context is passed over. report: called after each answer with 1 and its tokens.
    Raises DataError if none fits.
    """
    keys: dict[str, list[str]] = {}
    for file, rows in questions.items():
        for messages in rows:
            asked = next(i for i, message in enumerate(messages) if message["role"] == "user")
            prompt = chat.opening(messages[: asked + 1])
            key = hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:16]
            keys.setdefault(file, []).append(key)
            for arm in chosen:
                decoder = decoders[arm.shape]
                fits = len(prompt) + max_new_tokens <= decoder.target.config.max_position_embeddings
                if (file, key, arm.name) in results.answers or not fits:
                    report(1, 0)
                    continue
                decoder.generate(
                    torch.tensor([prompt], device=decoder.target.device),
                    max_new_tokens=max_new_tokens,
                    seed=len(keys[file]),
                    **at_temperature(arm.temperature),
                )
                results.add(file, key, arm, decoder.stats)
                report(1, decoder.stats.tokens)
    table = results.table(keys)
    if not table:
        raise DataError(
            f"No question leaves room for {max_new_tokens} new tokens in the target's context; give shorter questions "
            "or a lower --max-new-tokens."
        )
    return table


def mean_over_files(table: dict[str, dict[str, Acceptances]]) -> dict[str, tuple[float, list[float]]]:
    """(tokens per round, survival by depth) of every arm, averaged over files with equal weight."""
    means = {}
    for arm in dict.fromkeys(name for cells in table.values() for name in cells):
        cells = [row[arm] for row in table.values() if arm in row]
        depths = max(len(cell.survival) for cell in cells)
        survival = [sum((cell.survival + [0.0] * depths)[d] for cell in cells) / len(cells) for d in range(depths)]
        means[arm] = sum(cell.tokens_per_round for cell in cells) / len(cells), survival
    return means


def summary(table: dict[str, dict[str, Acceptances]]) -> dict[str, Any]:
    """The table and its means as they go into the JSON file."""
    files = {
        file: {
            arm: asdict(c) | {"tokens_per_round": c.tokens_per_round, "survival": c.survival} for arm, c in row.items()
        }
        for file, row in table.items()
    }
    means = {arm: {"tokens_per_round": tau, "survival": s} for arm, (tau, s) in mean_over_files(table).items()}
    return {"files": files, "mean": means}


def fingerprint(folder: str | Path) -> str:
    """A hash of the files of a head, so that results of another head under the same name are not continued."""
    if not Path(folder).is_dir():
        raise DataError(f"{folder} is no directory; give the directory of a draft head.")
    digest = hashlib.sha256()
    for file in sorted(Path(folder).iterdir()):
        if file.suffix in (".safetensors", ".bin", ".pt", ".json"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
