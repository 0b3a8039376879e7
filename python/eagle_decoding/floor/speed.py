"""From work to time: the floor of a round on a machine, and the best speed-up at a number of tokens per round.

With every phase at max(bytes / bandwidth, operations / peak):

    speed-up(tau) = tau * floor of a plain round / floor of a round

A round emits at most max_depth + 1 tokens, so tau ends there.
"""

from dataclasses import dataclass

from eagle_decoding.config import TreeConfig
from eagle_decoding.floor.ceilings import Ceilings
from eagle_decoding.floor.work import RoundModel, Work


@dataclass(frozen=True)
class Floor:
    """A round model on a machine, with a tree and a context."""

    model: RoundModel
    ceilings: Ceilings
    tree: TreeConfig
    context_len: float
    batch: int = 1

    def seconds(self, work: Work) -> float:
        return self.ceilings.floor(work.bytes, work.flops)

    def phases(self, tokens_per_round: float) -> dict[str, Work]:
        return self.model.round(self.tree, self.context_len, tokens_per_round, self.batch)

    def round_seconds(self, tokens_per_round: float) -> float:
        return sum(self.seconds(work) for work in self.phases(tokens_per_round).values())

    def plain_seconds(self) -> float:
        """Of one token by plain decoding."""
        return sum(self.seconds(work) for work in self.model.plain_round(self.context_len, self.batch).values())

    def speed_up(self, tokens_per_round: float) -> float:
        """Raises ValueError for more tokens than a round of this tree can emit."""
        if not 1 <= tokens_per_round <= self.tree.max_depth + 1:
            raise ValueError(
                f"A round of a tree of depth {self.tree.max_depth} emits 1 to {self.tree.max_depth + 1} tokens, "
                f"got {tokens_per_round:g}."
            )
        return tokens_per_round * self.plain_seconds() / self.round_seconds(tokens_per_round)
