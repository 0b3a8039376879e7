"""Acceptance along every axis of the atlas: each is a list of (label, tested, accepted)."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.rounds import Acceptance, LoggedRound

POSITIONS = (0, 8, 16, 32, 64, 128, 256, 512)  # first new token of each bucket of the answer


@dataclass(frozen=True)
class Answer:
    """One question's decode: where the answer starts in the text, and its rounds."""

    file: str
    question: str
    prompt_length: int
    rounds: list[LoggedRound]


@dataclass
class Tally:
    """tested and accepted by label, in the order in which labels came or were given."""

    counts: dict[str, list[int]] = field(default_factory=dict)

    def add(self, label: str, accepted: bool) -> None:
        entry = self.counts.setdefault(label, [0, 0])
        entry[0] += 1
        entry[1] += accepted

    def rows(self) -> list[list[str | int]]:
        return [[label, *counts] for label, counts in self.counts.items()]


def token_class(text: str) -> str:
    """What kind of token a piece of text is: new line, space, number, new word, inside a word, punctuation, other."""
    core = text.strip()
    if not core:
        return "new line" if "\n" in text else "space" if text else "other"
    if all(unicodedata.category(c)[0] == "N" for c in core):
        return "number"
    if all(unicodedata.category(c)[0] in "LM" or c in "'\u2019" for c in core) and any(c.isalpha() for c in core):
        return "new word" if text[0].isspace() else "inside a word"
    if all(unicodedata.category(c)[0] in "PS" for c in core):
        return "punctuation"
    return "other"


def bucket(position: int) -> str:
    """The answer's tokens from one entry of POSITIONS to the next."""
    start = max(edge for edge in POSITIONS if edge <= position)
    following = [edge for edge in POSITIONS if edge > position]
    return f"{start} to {following[0] - 1}" if following else f"{start} and on"


def atlas_counts(answers: Sequence[Answer], decode: Callable[[int], str]) -> dict[str, list[list[str | int]]]:
    """Tested and accepted along each axis.

    A depth is tested when the path reached its parent and the parent had children; it is accepted when one of them
    is. A rank is tested when a brother of that rank was there. Position and class are those of the token that the
    target chose at the tested place: was it in the tree?
    """
    depth, rank, position, kind = Tally(), Tally(), Tally(), Tally()
    for answer in answers:
        for logged in answer.rounds:
            for level, (node, chosen, hit) in enumerate(tests(logged), start=1):
                depth.add(str(level), hit is not None)
                for place, child in enumerate(logged.children(node), start=1):
                    rank.add(str(place), child == hit)
                position.add(bucket(logged.position + level - answer.prompt_length), hit is not None)
                kind.add(token_class(decode(chosen)), hit is not None)
    axes = {"depth": depth, "rank": rank, "position": position, "class": kind}
    return {name: in_order(name, tally.rows()) for name, tally in axes.items()}


def in_order(axis: str, rows: list[list[str | int]]) -> list[list[str | int]]:
    """Numbers ascend; classes come by how often they were tested."""
    if axis == "class":
        return sorted(rows, key=lambda row: -int(row[1]))
    return sorted(rows, key=lambda row: int(str(row[0]).split()[0]))


def tests(logged: LoggedRound) -> Iterable[tuple[int, int, int | None]]:
    """(node, token the target chose after it, child that holds it or None) along the path, while there are children."""
    for node, following in zip(logged.path, [*logged.path[1:], None], strict=True):
        if logged.children(node):
            yield node, logged.bonus_token if following is None else logged.tokens[following], following


def acceptance(answers: Sequence[Answer]) -> Acceptance:
    return Acceptance().add(logged for answer in answers for logged in answer.rounds)
