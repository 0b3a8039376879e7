"""How often the candidate of each rank is right at each depth: what the best static tree is made from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from eagle_decoding.train.depth_head import DepthHead
from eagle_decoding.train.rows import Documents, supervised_rows
from eagle_decoding.train.unroll_heads import path_tokens

RANKS = 10  # as many as the published trees look at


@torch.no_grad()
def rank_accuracy(head: DepthHead, packs: Iterable[tuple[Documents, Tensor]]) -> tuple[tuple[float, ...], ...]:
    """[heads][RANKS]: at depth d, the share of rows whose text has the candidate of rank r there.

    Only rows whose text was among the RANKS candidates at all depths before count: others never reach this depth.

    packs: documents with the target's states after its final norm [T, H].
    """
    heads, ranks = head.config.num_heads, min(RANKS, head.config.draft_vocab_size)
    right, rows = torch.zeros(heads, ranks, dtype=torch.float64), torch.zeros(heads, dtype=torch.float64)
    for documents, final in packs:
        law = supervised_rows(documents, heads)
        tokens = head.draft_ids[documents.input_ids]
        state = head.begin(final, documents)
        reached = torch.ones_like(law[0])
        for depth in range(heads):
            source = torch.nonzero(law[depth] & reached)[:, 0]
            logits = head(depth, state[source], path_tokens(documents, source, depth)) @ head.lm_head.T
            token = tokens[source + 2 + depth]
            own = logits.gather(1, token.clamp(min=0)[:, None])
            rank = (logits > own).sum(1).masked_fill(token < 0, ranks).clamp(max=ranks)
            right[depth] += torch.bincount(rank, minlength=ranks + 1)[:ranks]
            rows[depth] += len(source)
            reached[source] = rank < ranks
    shares = right / rows.clamp(min=1)[:, None]
    return tuple(tuple(round(share, 5) for share in depth) for depth in shares.tolist())
