"""Trees of drawn children that stay exact: how many children a node gets is decided before any of them is drawn.

Children are sampled from the draft's law without replacement ("sampled"), or all but the last are the likeliest ones
and only the last is sampled ("hybrid"); "auto" decides by request and round (rules.py). The loop verifies such trees
with `verify_rejection`. EAGLE-2 drops children after looking at them; that would bias the text here, so a level's
places are given out first, by what a place is worth: the probability that its node is reached times that of its j-th
child being accepted.
"""

from __future__ import annotations

from functools import cache
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import eagle_kernels
from eagle_decoding.config import TreeConfig
from eagle_decoding.drafts.base import TreeRows
from eagle_decoding.drafts.rules import fixed_children
from eagle_decoding.tree import DraftTree, Proposal
from eagle_kernels.sample_children import child_budget

if TYPE_CHECKING:
    from eagle_decoding.drafts.growth import GrowingDraft

ELSEWHERE = 0.1  # share of the target's law that is taken to lie anywhere but where the draft's law is


class DrawnNodes:
    """The nodes of a batch of trees, filled level by level; places without a node are padding."""

    def __init__(self, root_tokens: Tensor, num_nodes: int, draft_vocab: int, dtype: torch.dtype):
        batch, device = len(root_tokens), root_tokens.device
        self.draft_tokens = root_tokens[:, None].repeat(1, num_nodes)
        self.parent, self.depth = torch.full_like(self.draft_tokens, -1), torch.zeros_like(self.draft_tokens)
        self.ancestor_mask = single_bits(num_nodes, device).repeat(batch, 1, 1)
        self.scores = torch.full((batch, num_nodes), -torch.inf, device=device)  # log of how probably each is reached
        self.scores[:, 0] = 0
        self.num_fixed = torch.zeros_like(self.draft_tokens)
        self.draft_logits = torch.zeros(batch, num_nodes, draft_vocab, dtype=dtype, device=device)
        self.filled = 1

    def note_laws(self, frontier: Tensor, logits: Tensor, num_fixed: Tensor) -> None:
        """Keeps what the children of the frontier's nodes are drawn from."""
        self.draft_logits.scatter_(1, frontier.long()[..., None].expand_as(logits), logits)
        self.num_fixed.scatter_(1, frontier.long(), num_fixed)

    def add_level(self, level: int, width: int, frontier: Tensor, children: Tensor, scores: Tensor) -> Tensor:
        """Places the drawn children, at most `width` of them, in draw order; returns each place's frontier index.

        frontier: [batch, F] nodes; children: [batch, F, K] tokens, -1 for none; scores: [batch, F, K]
        """
        drawn = (children >= 0).flatten(1)
        places = (~drawn).byte().argsort(dim=1, stable=True)[:, :width]  # drawn ones first
        exists, origin = drawn.gather(1, places), places // children.shape[2]
        at, above = slice(self.filled, self.filled + width), frontier.gather(1, origin)
        tokens = children.flatten(1).gather(1, places)
        self.draft_tokens[:, at] = torch.where(exists, tokens, self.draft_tokens[:, :1])
        self.parent[:, at] = torch.where(exists, above, -1)
        self.depth[:, at] = exists * (level + 1)
        self.scores[:, at] = torch.where(exists, scores.flatten(1).gather(1, places), -torch.inf)
        words = self.ancestor_mask.shape[2]
        inherited = self.ancestor_mask.gather(1, above.long()[..., None].expand(-1, -1, words))
        self.ancestor_mask[:, at] |= torch.where(exists[..., None], inherited, 0)
        self.filled += width
        return origin


def propose_drawn(draft: GrowingDraft, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
    """Grows a tree level by level, with as many nodes in each level as `level_widths` says."""
    tree, device, k = draft.tree, root_tokens.device, draft.tree.topk
    nodes = DrawnNodes(root_tokens, tree.num_nodes, draft.draft_vocab_size, draft.dtype)
    frontier = torch.zeros_like(root_tokens)[:, None]
    row_bit = single_bits(max(1, tree.num_draft_rows), device)  # rows of the draft's tree cache
    seen = torch.zeros(len(root_tokens), 1, row_bit.shape[1], dtype=torch.int64, device=device)
    state, row = draft.root_state, 0
    for level, width in enumerate(level_widths(tree)):
        logits = draft.logits(state)
        reach = nodes.scores.gather(1, frontier.long())
        worth = place_worth(draft, logits, frontier, context_len)
        counts = child_budget(reach, worth, width)
        fixed = fixed_children(draft.rule, counts)
        nodes.note_laws(frontier, logits, fixed)
        children, logprobs = eagle_kernels.sample_children(
            logits, frontier, counts, context_len, **vars(draft.params), max_children=k, d2t=draft.d2t, num_fixed=fixed
        )
        gain = torch.where(torch.arange(k, device=device) < fixed[..., None], logprobs, worth)
        origin = nodes.add_level(level, width, frontier, children, reach[..., None] + gain)
        if nodes.filled == tree.num_nodes:
            break
        first = nodes.filled - width
        best = nodes.scores[:, first : nodes.filled].argsort(dim=1, descending=True, stable=True)[:, :k]
        frontier, origin = (first + best).int(), origin.gather(1, best)
        inherited = seen.gather(1, origin[..., None].expand(-1, -1, row_bit.shape[1]))
        seen = inherited | row_bit[row : row + best.shape[1]]
        tokens = nodes.draft_tokens.gather(1, frontier.long())
        state = draft.run(TreeRows(tokens, origin, level + 1, context_len, seen, row), draft.fed_back(state))
        row += best.shape[1]
    return DraftTree(
        nodes.draft_tokens,
        nodes.parent,
        nodes.depth,
        context_len[:, None] + nodes.depth,
        nodes.ancestor_mask,
        nodes.scores,
        tree.max_depth,
        Proposal(nodes.draft_logits, None if tree.children == "sampled" else nodes.num_fixed, draft.d2t),
    )


def place_worth(draft: GrowingDraft, logits: Tensor, frontier: Tensor, context_len: Tensor) -> Tensor:
    """Log of how probably the target accepts the j-th child of each node, judged by the draft's law alone.

    A mixture: the draft's j-th largest probability, and with weight ELSEWHERE all that its larger ones leave.

    logits: [batch, F, draft_vocab]; returns [batch, F, topk] float32
    """
    k = draft.tree.topk
    all_fixed = torch.full_like(frontier, k)
    _, logprobs = eagle_kernels.sample_children(
        logits,
        frontier,
        all_fixed,
        context_len,
        **vars(draft.params),
        max_children=k,
        d2t=draft.d2t,
        num_fixed=all_fixed,
    )
    likeliest = logprobs.exp()
    left = 1 - likeliest.cumsum(-1) + likeliest
    worth = ((1 - ELSEWHERE) * likeliest + ELSEWHERE * left).clamp(min=1e-9).log()
    greedy = (draft.params.temperature <= 0)[:, None, None]
    return torch.where(greedy | logprobs.isinf(), logprobs, worth)


@cache
def level_widths(tree: TreeConfig) -> list[int]:
    """How many nodes each level gets, the root's excepted; it must not depend on what is drawn in the level.

    Those of a static tree in which a step aside, to the next sibling, costs as much as one and a half steps down: the
    num_nodes - 1 cheapest places (static trees by rank: Sequoia, arXiv 2402.12374). A level has at most topk expanded
    nodes above it.
    """
    down, aside = 2, 3
    places, widths = [(down, 0, 0)], [0] * tree.max_depth  # cost, level, rank among siblings
    while sum(widths) < tree.num_nodes - 1:
        cost, level, rank = heappop(places)
        if widths[level] == tree.topk**2:
            continue
        widths[level] += 1
        if rank + 1 < tree.topk:
            heappush(places, (cost + aside, level, rank + 1))
        if level + 1 < tree.max_depth:
            heappush(places, (cost + down, level + 1, 0))
    return widths


def single_bits(count: int, device: torch.device) -> Tensor:
    """[count, words] int64: row i has bit i set."""
    index = torch.arange(count, device=device)
    words = torch.zeros(count, -(-count // 64), dtype=torch.int64, device=device)
    words[index, index // 64] = torch.ones_like(index) << (index % 64)
    return words
