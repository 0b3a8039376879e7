"""How a draft tree is grown."""

from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

Children = Literal["likeliest", "coupled", "sampled", "hybrid", "auto"]
MAX_NODES = 128  # two 64-bit ancestor words a node


@dataclass(frozen=True)
class TreeConfig:
    """Shape of the draft tree of one round.

    num_nodes: nodes verified by the target, the root (the last committed token) included
    max_depth: levels below the root, one draft forward each
    topk:      children looked at per node, and nodes expanded per level; 1 drafts a chain
    children:  which tokens become a node's children when sampling; greedy requests always draft the likeliest.
               "likeliest" and "coupled" (the likeliest once the noise is known that will choose the target's token)
               give the text of plain sampling with the same seed; trees with drawn children give text of the same law:
               "sampled", "hybrid" (all but one are the likeliest) and "auto" (the best of these two and the likeliest,
               by what a request's earlier rounds accepted)
    static:    EAGLE heads fill EAGLE-1's published tree, cut to the other three, instead of growing what is likeliest

    SGLang's names for the same: speculative_num_draft_tokens, speculative_num_steps, speculative_eagle_topk.
    """

    num_nodes: int = 12
    max_depth: int = 4
    topk: int = 4
    children: Children = "coupled"
    static: bool = False

    def __post_init__(self) -> None:
        if self.children not in get_args(Children):
            raise ValueError(f"children must be one of {', '.join(get_args(Children))}, got {self.children!r}.")
        if self.static and self.drawn:
            raise ValueError(f"A static tree takes likeliest or coupled children, got {self.children!r}.")
        if not all(isinstance(size, Integral) for size in (self.num_nodes, self.max_depth, self.topk)):
            raise ValueError(
                f"num_nodes, max_depth and topk must be integers, got {self.num_nodes!r}, {self.max_depth!r} and "
                f"{self.topk!r}."
            )
        if self.max_depth < 1 or self.topk < 1:
            raise ValueError(f"max_depth and topk must be at least 1, got {self.max_depth} and {self.topk}.")
        if not 2 <= self.num_nodes <= min(MAX_NODES, self.num_candidates):
            raise ValueError(
                f"num_nodes must be between 2 and {min(MAX_NODES, self.num_candidates)} for max_depth {self.max_depth} "
                f"and topk {self.topk}, got {self.num_nodes}."
            )
        if self.num_draft_rows > MAX_NODES:
            raise ValueError(
                f"(max_depth - 1) * topk must not exceed {MAX_NODES}, got {self.max_depth} and {self.topk}."
            )

    @property
    def drawn(self) -> bool:
        """When sampling, children are drawn: the tree is verified by rejection, all of it."""
        return self.children in ("sampled", "hybrid", "auto")

    @property
    def num_candidates(self) -> int:
        """Nodes looked at before the best num_nodes are kept: the root, topk, then topk * topk a level."""
        return 1 + self.topk + (self.max_depth - 1) * self.topk**2

    @property
    def num_draft_rows(self) -> int:
        """Nodes that the draft's own layers run: up to topk of each level but the last, whose children nobody needs."""
        return (self.max_depth - 1) * self.topk
