"""Small cases for exact checks: every small tree, six filters, random laws for every context of a small vocabulary."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from eagle_kernels.reference.filters import filtered_scores

Context = tuple[int, ...]  # the tokens after the root
FILTERS = {  # temperature, top-k, top-p, min-p
    "plain": (1.0, 0, 1.0, 0.0),
    "cold": (0.4, 0, 1.0, 0.0),
    "top_k": (1.0, 2, 1.0, 0.0),
    "top_p": (1.3, 0, 0.7, 0.0),
    "min_p": (1.0, 0, 1.0, 0.3),
    "all": (0.7, 3, 0.9, 0.05),
}


def all_trees(max_nodes: int, max_depth: int) -> Iterator[list[int]]:
    """Parent lists of all ordered trees, nodes in level order of generation (depth first, parent < node)."""

    def grow(parents: list[int], depth: list[int]) -> Iterator[list[int]]:
        yield parents
        if len(parents) == max_nodes:
            return
        last = len(parents) - 1
        rightmost = []  # a new node may hang below any node of the rightmost path: every tree appears once
        while last >= 0:
            rightmost.append(last)
            last = parents[last]
        for above in rightmost:
            if depth[above] < max_depth:
                yield from grow([*parents, above], [*depth, depth[above] + 1])

    yield from grow([-1], [0])


class Laws:
    """The law of the next token after every context up to a depth, and the law of the text that follows from it."""

    def __init__(self, rows: dict[Context, Tensor]) -> None:
        self.rows = rows
        self.texts: dict[Context, Tensor] = {}
        self.shortened: dict[tuple[Context, Context], list[float]] = {}
        for context in sorted(rows, key=len, reverse=True):
            row = rows[context]
            rest = torch.stack([self.text((*context, token)) for token in range(len(row))])
            self.texts[context] = row.view(-1, *[1] * (rest.dim() - 1)) * rest

    def __getitem__(self, context: Context) -> Tensor:
        return self.rows[context]

    def without(self, context: Context, taken: tuple[int, ...]) -> list[float]:
        """The law of the next token without some tokens, renormalised; zeros if nothing is left."""
        if (context, taken) not in self.shortened:
            law = self[context].clone()
            law[[token for token in taken if token >= 0]] = 0
            self.shortened[context, taken] = (law / law.sum()).nan_to_num().tolist()
        return self.shortened[context, taken]

    def text(self, context: Context = ()) -> Tensor:
        """Law of all tokens after the context by plain sampling: [vocabulary] * their number, [] with 1 at the end."""
        return self.texts.get(context, torch.ones((), dtype=torch.float64))

    def distance(self, text: Tensor) -> float:
        """Total variation between a law of the text and that of plain sampling."""
        return 0.5 * float((text - self.text()).abs().nan_to_num(nan=torch.inf).sum())


def random_laws(vocabulary: int, depth: int, filters: str, drafts: list[int] | None = None, scale: float = 1.5) -> Laws:
    """A random filtered law for every context up to a depth; `drafts` lists the tokens a draft vocabulary has."""
    contexts = [context for length in range(depth + 1) for context in product(range(vocabulary), repeat=length)]
    logits = scale * torch.randn(len(contexts), vocabulary, dtype=torch.float64)
    if drafts is not None:
        logits[:, [token for token in range(vocabulary) if token not in drafts]] = -torch.inf
    params = (torch.tensor([value], dtype=torch.float64) for value in FILTERS[filters])
    return Laws(dict(zip(contexts, filtered_scores(logits, *params).softmax(-1), strict=True)))
