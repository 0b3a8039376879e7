"""Medusa: a head per depth guesses from the target's state alone; a fixed tree combines the guesses."""

from torch import Tensor

from eagle_decoding.drafts.base import Commit, last_rows
from eagle_decoding.drafts.depth_heads import DepthHeadDraft
from eagle_decoding.drafts.static_tree import Level


class MedusaDraft(DepthHeadDraft):
    """Drafts with Medusa heads (Cai et al. 2024, arXiv 2401.10774): one pass over the heads fills the whole tree.

    Heads read the target's state after its final norm, and no other head's guess: the children of every node of a depth
    are the same candidates.
    """

    on_device = True

    def extend(self, commit: Commit) -> None:
        self.state = last_rows(commit.features, commit.num_rows)

    def inputs(self, level: Level, tokens: Tensor) -> Tensor:
        return self.state
