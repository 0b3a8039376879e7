"""What rounds accepted: tokens per round and survival by depth, by file and way of decoding, and their means."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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


Table = dict[str, dict[str, Acceptances]]  # by file, then by the name of the way of decoding


def mean_over_files(table: Table) -> dict[str, tuple[float, list[float]]]:
    """(tokens per round, survival by depth) of every way of decoding, averaged over files with equal weight."""
    means = {}
    for arm in dict.fromkeys(name for cells in table.values() for name in cells):
        cells = [row[arm] for row in table.values() if arm in row]
        depths = max(len(cell.survival) for cell in cells)
        survival = [sum((cell.survival + [0.0] * depths)[d] for cell in cells) / len(cells) for d in range(depths)]
        means[arm] = sum(cell.tokens_per_round for cell in cells) / len(cells), survival
    return means


def summary(table: Table) -> dict[str, Any]:
    """The table and its means as they go into the JSON file."""
    files = {file: {arm: with_shares(cell) for arm, cell in row.items()} for file, row in table.items()}
    means = {
        arm: {"tokens_per_round": tau, "survival": survival} for arm, (tau, survival) in mean_over_files(table).items()
    }
    return {"files": files, "mean": means}


def with_shares(cell: Acceptances) -> dict[str, Any]:
    return asdict(cell) | {"tokens_per_round": cell.tokens_per_round, "survival": cell.survival}
