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
from eagle_decoding.drafts.rules import fixed_children
from eagle_decoding.tree import DraftTree, Proposal
from eagle_kernels.sample_children import child_budget

if TYPE_CHECKING:
    from eagle_decoding.drafts.eagle3 import Eagle3Draft

ELSEWHERE = 0.1  # share of the target's law that is taken to lie anywhere but where the draft's law is


def propose_drawn(draft: Eagle3Draft, root_tokens: Tensor, context_len: Tensor) -> DraftTree:
    """Grows a tree level by level, with as many nodes in each level as `level_widths` says."""
    tree, device, batch, k = draft.tree, root_tokens.device, len(root_tokens), draft.tree.topk
    nodes = tree.num_nodes
    own_bit = single_bits(nodes, device)
    draft_tokens = root_tokens[:, None].repeat(1, nodes)
    parent, depth = torch.full_like(draft_tokens, -1), torch.zeros_like(draft_tokens)
    ancestor_mask = own_bit.repeat(batch, 1, 1)
    scores = torch.full((batch, nodes), -torch.inf, device=device)
    scores[:, 0] = 0
    num_fixed = torch.zeros_like(draft_tokens)
    draft_logits = torch.zeros(batch, nodes, len(draft.lm_head), dtype=draft.dtype, device=device)
    frontier = torch.zeros(batch, 1, dtype=torch.int32, device=device)
    state, offset, row, row_bit = draft.root_state, 1, 0, single_bits(tree.max_depth * k, device)
    seen = torch.zeros(batch, 1, row_bit.shape[1], dtype=torch.int64, device=device)
    for level, width in enumerate(level_widths(tree)):
        normed = eagle_kernels.rms_norm(state, draft.norm, draft.config.rms_norm_eps)
        logits = eagle_kernels.linear(normed, draft.lm_head)
        draft_logits.scatter_(1, frontier.long()[..., None].expand_as(logits), logits)
        reach = scores.gather(1, frontier.long())
        worth = place_worth(draft, logits, frontier, context_len)
        counts = child_budget(reach, worth, width)
        fixed = fixed_children(draft.rule, counts)
        num_fixed.scatter_(1, frontier.long(), fixed)
        children, logprobs = eagle_kernels.sample_children(
            logits, frontier, counts, context_len, **vars(draft.params), max_children=k, d2t=draft.d2t, num_fixed=fixed
        )
        gain = torch.where(torch.arange(k, device=device) < fixed[..., None], logprobs, worth)
        drawn = (children >= 0).flatten(1)
        places = (~drawn).byte().argsort(dim=1, stable=True)[:, :width]  # drawn ones first, in draw order
        exists, origin = drawn.gather(1, places), places // k
        level_nodes = slice(offset, offset + width)
        above = frontier.gather(1, origin)
        draft_tokens[:, level_nodes] = torch.where(exists, children.flatten(1).gather(1, places), root_tokens[:, None])
        parent[:, level_nodes] = torch.where(exists, above, -1)
        depth[:, level_nodes] = exists * (level + 1)
        inherited = ancestor_mask.gather(1, above.long()[..., None].expand(-1, -1, own_bit.shape[1]))
        ancestor_mask[:, level_nodes] |= torch.where(exists[..., None], inherited, 0)
        cumulative = (reach[..., None] + gain).flatten(1).gather(1, places)
        scores[:, level_nodes] = torch.where(exists, cumulative, -torch.inf)
        offset += width
        if offset == nodes:
            break
        best = scores[:, level_nodes].argsort(dim=1, descending=True, stable=True)[:, :k]
        frontier = (offset - width + best).int()
        expanded = origin.gather(1, best)
        rows = slice(row, row + best.shape[1])
        seen = seen.gather(1, expanded[..., None].expand(-1, -1, row_bit.shape[1])) | row_bit[rows]
        hidden = normed if draft.config.norm_output else state
        state = draft.forward(
            draft_tokens.gather(1, frontier.long()),
            hidden.gather(1, expanded[..., None].expand(-1, -1, hidden.shape[-1])),
            (context_len + level)[:, None].expand_as(frontier).contiguous(),
            context_len,
            seen,
            (context_len[:, None] + torch.arange(rows.start, rows.stop, device=device)).int(),
        )
        row = rows.stop
    return DraftTree(
        draft_tokens,
        parent,
        depth,
        context_len[:, None] + depth,
        ancestor_mask,
        scores,
        tree.max_depth,
        Proposal(draft_logits, None if tree.children == "sampled" else num_fixed, draft.d2t),
    )


def place_worth(draft: Eagle3Draft, logits: Tensor, frontier: Tensor, context_len: Tensor) -> Tensor:
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
